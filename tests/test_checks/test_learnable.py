"""Data without a bad file from which nothing can be learned."""

import json
import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmcloformer.checks.examine import check_dataset
from mmcloformer.checks.learnable import absent_classes, box_problems, box_warnings, unlearnable
from mmcloformer.checks.presence import check_data
from mmcloformer.errors import DataError
from tests.conftest import ROOT

LAYOUTS = dict(
    coco='retinanet_cloformer_xxs', ade20k='semantic-fpn_cloformer_xxs', imagenet='cloformer_xxs'
)


@pytest.fixture
def data(shapes, tmp_path):
    """Copy a layout and return its config and folder."""

    def data(layout):
        root = shutil.copytree(shapes / layout, tmp_path / layout)
        cfg = Config.fromfile(ROOT / f'configs/demo/{LAYOUTS[layout]}_shapes.py')
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
        if layout == 'coco':
            for split in ('val', 'test'):
                cfg[f'{split}_evaluator'].ann_file = f'{root}/annotations/instances_val2017.json'
        return cfg, root

    return data


def relabel(root, split, change):
    for file in (root / 'annotations' / split).iterdir():
        Image.fromarray(change(np.array(Image.open(file))).astype(np.uint8)).save(file)


def rewrite(root, change, split='train'):
    file = root / 'annotations' / f'instances_{split}2017.json'
    content = json.loads(file.read_text())
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    for each in content['annotations']:
        change(each, *sizes[each['image_id']])
    file.write_text(json.dumps(content))


@pytest.fixture
def masks(data):
    """Two classes, and label maps that a test changes."""
    cfg, root = data('ade20k')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.update(
            metainfo=dict(classes=('background', 'shape'), palette=[[0] * 3, [9] * 3]),
            reduce_zero_label=False,
        )
        cfg[f'{split}_dataloader'].dataset.pipeline[1].reduce_zero_label = False
    cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label = False
    cfg.model.decode_head.num_classes = 2
    return cfg, root


def test_masks_saved_as_0_and_255(masks):
    cfg, root = masks
    relabel(root, 'training', lambda labels: 255 * (labels > 1))
    relabel(root, 'validation', lambda labels: labels > 1)
    with pytest.raises(DataError, match='Masks saved as 0 and 255 need the number of the class'):
        check_data(cfg, ('train', 'val'))
    _, (problem,), _ = check_dataset(cfg, workers=0)
    assert problem.startswith('train_dataloader.dataset: all pixels that count have the label 0')
    assert 'Masks saved as 0 and 255 need the number of the class' in problem
    relabel(root, 'training', lambda labels: labels > 1)
    relabel(root, 'validation', lambda labels: 255 * labels)
    check_data(cfg, ('train', 'val'))
    _, problems, (warning,) = check_dataset(cfg, workers=0)
    assert not problems
    assert warning.startswith('val_dataloader.dataset: 1 of 2 classes have no pixel: shape. This')


def test_masks_of_nothing_but_the_ignore_value(data):
    """As 0 and 255 become with reduce_zero_label."""
    cfg, root = data('ade20k')
    relabel(root, 'validation', lambda labels: 255 * (labels > 1))
    _, (problem,), _ = check_dataset(cfg, workers=0)
    assert problem.startswith('val_dataloader.dataset: every pixel is left out of loss and score')


@pytest.mark.parametrize('split', ['train', 'val'])
def test_every_object_is_a_crowd(data, split):
    cfg, root = data('coco')
    rewrite(root, lambda each, *size: each.update(iscrowd=1), split)
    with pytest.raises(DataError, match=r'objects have iscrowd=1, so .* set iscrowd=0'):
        check_data(cfg, ('train', 'val'))
    _, (problem,), _ = check_dataset(cfg, workers=0)
    assert f'instances_{split}2017.json ({split}_dataloader.dataset): all ' in problem


def as_corners(each, width, height):
    x, y, w, h = each['bbox']
    each['bbox'] = [x, y, x + w, y + h]


def test_boxes_written_as_corners(data):
    cfg, root = data('coco')
    for split in ('train', 'val'):
        rewrite(root, as_corners, split)
    with pytest.raises(DataError, match=r'cross the edge .* a bbox is \[x, y, width, height\]'):
        check_data(cfg, ('train',))
    _, problems, _ = check_dataset(cfg, workers=0)
    assert len(problems) == 2


def test_boxes_of_the_image_at_another_size_are_a_warning(data):
    cfg, root = data('coco')
    rewrite(root, lambda each, *size: each.update(bbox=[3 * value for value in each['bbox']]))
    check_data(cfg, ('train',))
    _, _, warnings = check_dataset(cfg, workers=0)
    assert any('boxes cross the edge of their image. This may be meant' in w for w in warnings)


def boxes(*rows):
    images = [dict(id=1, width=100, height=80)]
    return images, [dict(image_id=1, bbox=list(row)) for row in rows]


@pytest.mark.parametrize(
    'found',
    [
        boxes([0, 0, 100, 80], [0, 0, 99, 80], [10, 5, 90, 75]),  # Objects that fill the image.
        boxes([60, 50, 41, 31], [0, 0, 101, 81]),  # Rounded.
        boxes([10, 10, 95, 75], [0, 0, 50, 50], [20, 20, 30, 30]),  # One that is cut off.
        boxes([1, 2, 3], [1, 2, None, 4]),
        ([], []),
    ],
)
def test_boxes_that_are_good_or_another_checks(found):
    assert not list(box_problems(*found))
    assert not list(box_warnings(*found))


def test_objects_that_the_image_cuts_off_are_no_corners():
    found = boxes([60, 50, 90, 20], [70, 10, 60, 20], [20, 60, 10, 60])
    assert not list(box_problems(*found))
    assert len(list(box_warnings(*found))) == 1


def test_large_boxes_that_end_a_little_outside_are_no_corners():
    found = boxes([4, 5, 100, 80], [3, 6, 100, 79], [5, 4, 99, 80], [2, 3, 101, 80])
    assert not list(box_problems(*found))
    assert len(list(box_warnings(*found))) == 1


def test_a_class_without_a_box_in_one_split(data):
    cfg, root = data('coco')
    rewrite(root, lambda each, *size: each.update(category_id=2), 'val')
    samples, problems, warnings = check_dataset(cfg, workers=0)
    assert (samples, problems) == (dict(train=8, val=4), [])
    assert [each for each in warnings if each.startswith('val')] == [
        'val_dataloader.dataset: 3 of 4 classes have no box: ring, star, triangle. This may be '
        'meant, as in a part of a data set; if not, correct the labels or metainfo.classes'
    ]


def test_pictures_of_one_class(data):
    cfg, root = data('imagenet')
    listing = root / 'train.txt'
    names = sorted(path.relative_to(root) for path in (root / 'train' / 'ring').iterdir())
    listing.write_text(''.join(f'{name} 0\n' for name in names))
    cfg.train_dataloader.dataset.update(ann_file='train.txt', data_prefix='', split='')
    _, (problem,), _ = check_dataset(cfg, workers=0)
    assert problem.startswith('train_dataloader.dataset: every image has the label 0, so nothing')
    cfg.train_dataloader.dataset.indices = 2  # A quick look.
    _, problems, warnings = check_dataset(cfg, workers=0)
    assert not problems
    assert '3 of 4 classes have no image: square, star, triangle' in warnings[0]


def test_splits_without_labels_and_single_classes_pass():
    for scope in ('mmdet', 'mmseg', 'mmpretrain'):
        assert not list(unlearnable(scope, 'test', {}, 3, partial=False))
        assert not list(absent_classes(scope, 'test', {}, ['a', 'b']))
        assert not list(unlearnable(scope, 'train', {0: 5}, 1, partial=False))
    assert not list(unlearnable('mmdet', 'train', {0: 5}, 3, partial=False))
