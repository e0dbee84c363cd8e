import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmcloformer.datasets.layouts import LAYOUTS, write_imagenet
from mmcloformer.datasets.shapes import (
    CLASSES,
    METAINFO,
    SEG_METAINFO,
    Instance,
    Scene,
    make_scene,
)

COUNT = 8


@pytest.fixture(scope='module')
def scenes():
    return {
        split: [make_scene(index, split) for index in range(COUNT)] for split in ('train', 'val')
    }


@pytest.fixture(scope='module')
def root(scenes, tmp_path_factory):
    """Folder with every layout in a folder of its name."""
    root = tmp_path_factory.mktemp('shapes')
    for layout, write in LAYOUTS.items():
        for split in scenes:
            write(root / layout, split, scenes[split])
    return root


def test_coco_scores_perfect_predictions_as_perfect(root, scenes):
    file = root / 'coco/annotations/instances_val2017.json'
    truth = COCO(str(file))
    annotations = json.loads(file.read_text())['annotations']
    assert len(annotations) == sum(len(scene.instances) for scene in scenes['val'])
    predictions = truth.loadRes([{**annotation, 'score': 1.0} for annotation in annotations])
    for kind in ('bbox', 'segm'):
        evaluation = COCOeval(truth, predictions, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == 1


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmdet_reads_what_was_drawn(root, scenes, split):
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations

    dataset = CocoDataset(
        data_root=str(root / 'coco'),
        ann_file=f'annotations/instances_{split}2017.json',
        data_prefix={'img': f'{split}2017/'},
        metainfo=METAINFO,
        filter_cfg={'filter_empty_gt': True, 'min_size': 32},
        pipeline=[LoadImageFromFile(), LoadAnnotations(with_bbox=True, with_mask=True)],
    )
    assert len(dataset) == COUNT
    for sample, scene in zip(dataset, scenes[split], strict=True):
        assert np.array_equal(sample['img'], scene.image[..., ::-1])
        assert sample['gt_bboxes_labels'].tolist() == [i.label for i in scene.instances]
        assert sample['gt_bboxes'].tensor.tolist() == [list(i.bbox) for i in scene.instances]
        assert not sample['gt_ignore_flags'].any()
        assert np.array_equal(sample['gt_masks'].masks, [i.mask for i in scene.instances])


# ADE20KDataset takes no other classes than its own; the labels are the same either way.
@pytest.mark.parametrize(
    ('split', 'folder', 'dataset_name', 'metainfo'),
    [
        ('train', 'training', 'ADE20KDataset', None),
        ('val', 'validation', 'BaseSegDataset', SEG_METAINFO),
    ],
)
def test_mmseg_reads_what_was_drawn(root, scenes, split, folder, dataset_name, metainfo):
    from mmcv.transforms import LoadImageFromFile
    from mmseg import datasets
    from mmseg.datasets.transforms import LoadAnnotations

    dataset = getattr(datasets, dataset_name)(
        data_root=str(root / 'ade20k'),
        data_prefix={'img_path': f'images/{folder}', 'seg_map_path': f'annotations/{folder}'},
        metainfo=metainfo,
        reduce_zero_label=True,
        pipeline=[LoadImageFromFile(), LoadAnnotations()],
    )
    assert len(dataset) == COUNT
    for sample, scene in zip(dataset, scenes[split], strict=True):
        expected = np.zeros(scene.image.shape[:2], int)
        for instance in scene.instances:
            name = CLASSES[instance.label]
            expected[instance.mask] = SEG_METAINFO['classes'].index(name)
        assert np.array_equal(sample['gt_seg_map'], expected)
        error = np.abs(sample['img'].astype(int) - scene.image[..., ::-1])
        assert error.mean() < 6


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmpretrain_reads_what_was_written(root, scenes, split):
    from mmpretrain.datasets import ImageNet

    dataset = ImageNet(data_root=str(root / 'imagenet'), split=split, metainfo=METAINFO)
    assert dataset.metainfo['classes'] == CLASSES
    number = len(dataset)
    assert COUNT <= number <= sum(len(scene.instances) for scene in scenes[split])
    for i in range(number):
        info = dataset.get_data_info(i)
        assert f'/{CLASSES[info["gt_label"]]}/' in info['img_path']
        with Image.open(info['img_path']) as image:
            assert image.width == image.height <= 128


def test_crops_show_the_object_they_are_named_after(tmp_path):
    from mmpretrain.datasets import ImageNet

    big, small, far = (np.zeros((128, 128), bool) for _ in range(3))
    small[42:46, 30:60] = small[30:60, 42:46] = True  # fills less of its box than
    big[20:70, 0:70] = ~small[20:70, 0:70]
    far[100:128, 100:128] = True
    image = np.zeros((128, 128, 3), np.uint8)
    for mask, grey in ((big, 80), (small, 160), (far, 240)):
        image[mask] = grey
    scene = Scene(image, (Instance(1, big), Instance(0, small), Instance(3, far)))
    write_imagenet(tmp_path, 'val', [scene])

    # Classes without images keep their numbers.
    dataset = ImageNet(data_root=str(tmp_path), split='val', metainfo=METAINFO)
    crops = {info['gt_label']: info['img_path'] for info in map(dataset.get_data_info, range(2))}
    assert len(dataset) == 2
    assert set(crops) == {1, 3}
    for label, mask, grey in ((1, big, 80), (3, far, 240)):
        with Image.open(crops[label]) as opened:
            crop = np.asarray(opened.convert('L')).astype(int)
        own = np.abs(crop - grey) < 20
        assert own.sum() == pytest.approx(mask.sum(), rel=0.05)  # the object is in it as a whole
        assert crop.size < 3 * mask.sum()
