"""Labels and label maps: outside of the classes, damaged by saving, or with nothing to learn."""

import io

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmcloformer.checks.labels import (
    blurred_fault,
    count_problems,
    label_map_fault,
    label_map_problems,
)
from mmcloformer.checks.presence import check_data
from mmcloformer.config import ConfigView
from mmcloformer.errors import DataError
from tests.spelling import SPELLINGS, spell


class OwnLoader(LoadAnnotations):
    """A step of a user's own."""


def relabel(root, split, change, **options):
    for file in (root / 'annotations' / split).iterdir():
        Image.fromarray(change(np.array(Image.open(file))).astype(np.uint8)).save(file, **options)


@pytest.fixture
def masks(scenes):
    """Two classes, and label maps that a test changes."""
    cfg, root = scenes('mmseg')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.update(
            metainfo=dict(classes=('background', 'shape'), palette=[[0] * 3, [9] * 3]),
            reduce_zero_label=False,
        )
        cfg[f'{split}_dataloader'].dataset.pipeline[1].reduce_zero_label = False
    cfg.model.decode_head.num_classes = 2
    return cfg, root


def test_masks_saved_as_0_and_255(masks, examine):
    cfg, root = masks
    relabel(root, 'training', lambda labels: 255 * (labels > 1))
    relabel(root, 'validation', lambda labels: labels > 1)
    with pytest.raises(DataError, match='Masks saved as 0 and 255 need the number of the class'):
        check_data(cfg, ('train', 'val'))
    _, (problem,), _ = examine(cfg)
    assert problem.startswith('train_dataloader.dataset: every pixel that counts has the label 0')
    assert 'Masks saved as 0 and 255 need the number of the class' in problem
    relabel(root, 'training', lambda labels: labels > 1)
    relabel(root, 'validation', lambda labels: 255 * labels)
    check_data(cfg, ('train', 'val'))
    _, problems, (warning,) = examine(cfg)
    assert not problems
    assert warning.startswith('val_dataloader.dataset: 1 of 2 classes have no pixel: shape. This')


@pytest.mark.parametrize('spelling', [*SPELLINGS, 'own'])
def test_masks_of_0_and_255_are_found_in_every_spelling(masks, spelling):
    cfg, root = masks
    relabel(root, 'training', lambda labels: 255 * (labels > 1))
    as_spelt = 'name' if spelling == 'own' else spelling
    dataset = cfg.train_dataloader.dataset
    dataset.type = spell('mmseg', 'DATASETS', 'BaseSegDataset', as_spelt)
    for step in dataset.pipeline:
        if step.type == 'LoadAnnotations' or spelling == 'itself':
            spelt = spell('mmseg', 'TRANSFORMS', step.type, as_spelt)
            step.type = OwnLoader if spelling == 'own' else spelt
    if spelling == 'itself':
        cfg.default_scope = None
        cfg.model.type = spell('mmseg', 'MODELS', 'EncoderDecoder', spelling)
    (problem,) = label_map_problems(ConfigView(cfg), ['train'])
    assert problem.field == 'train_dataloader.dataset'


@pytest.mark.parametrize(
    ('head', 'metric', 'splits'),
    [(11, 11, []), (11, 255, ['val']), (255, 11, ['train']), (255, 255, ['train', 'val'])],
)
def test_the_label_that_losses_and_evaluator_ignore_is_good(scenes, examine, head, metric, splits):
    """Whatever the data set's own ignore_index is."""
    cfg, root = scenes('mmseg')
    for split in ('training', 'validation'):
        relabel(root, split, lambda labels: np.where(labels == 1, 12, labels))
    cfg.model.decode_head.ignore_index = head
    cfg.model.auxiliary_head = cfg.model.decode_head
    cfg.val_evaluator = cfg.test_evaluator = dict(cfg.val_evaluator, ignore_index=metric)
    cfg.train_dataloader.dataset.ignore_index = 11
    assert [f'({split}_dataloader.dataset)' for split in splits] == [
        problem.partition(': ')[0].split()[2] for problem in examine(cfg)[1] if ' files ' in problem
    ]


def test_masks_of_nothing_but_the_ignore_value(scenes, examine):
    """As 0 and 255 become with reduce_zero_label; and as JPEG."""
    cfg, root = scenes('mmseg')
    relabel(root, 'validation', lambda labels: 255 * (labels > 1))
    relabel(root, 'training', lambda labels: labels, format='JPEG')
    _, problems, _ = examine(cfg)
    nothing = 'val_dataloader.dataset: every pixel is left out of loss and score'
    assert [each for each in problems if each.startswith(nothing)]
    assert [each for each in problems if each.startswith('8 files (train') and 'JPEG' in each]


def test_a_class_without_a_box_in_one_split(scenes, examine, rewrite):
    cfg, root = scenes('mmdet')
    rewrite(root, lambda file: [each.update(category_id=2) for each in file['annotations']], 'val')
    samples, problems, warnings = examine(cfg)
    assert (samples, problems) == (dict(train=8, val=4), [])
    (warning,) = [each for each in warnings if each.startswith('val')]
    assert '3 of 4 classes have no box: ring, star, triangle. This may be meant' in warning


def test_pictures_of_one_class(scenes, examine):
    cfg, root = scenes('mmpretrain')
    listing = root / 'train.txt'
    names = sorted(path.relative_to(root) for path in (root / 'train' / 'ring').iterdir())
    listing.write_text(''.join(f'{name} 0\n' for name in names))
    cfg.train_dataloader.dataset.update(ann_file='train.txt', data_prefix='', split='')
    _, (problem,), _ = examine(cfg)
    assert problem.startswith('train_dataloader.dataset: every image has the label 0, so nothing')
    cfg.train_dataloader.dataset.indices = 2  # A quick look.
    _, problems, warnings = examine(cfg)
    assert not problems
    assert '3 of 4 classes have no image: square, star, triangle' in warnings[0]


@pytest.mark.parametrize(
    ('host', 'split', 'counts', 'classes'),
    [
        ('mmdet', 'test', {}, 'ab'),
        ('mmseg', 'test', {}, 'ab'),
        ('mmseg', 'train', {0: 5}, 'a'),
        ('mmdet', 'train', {0: 5}, 'a'),
    ],
)
def test_splits_without_labels_and_single_classes_pass(host, split, counts, classes):
    view = ConfigView(Config(dict(default_scope=host)))
    dataset = BaseDataset(metainfo=dict(classes=[*classes]), lazy_init=True)
    assert not [*count_problems(view, split, counts, dataset)]


def label_map(size=(240, 320)):
    """Regions with straight, slanted and curved edges, in eleven classes."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    labels = (columns // 40 + rows // 60 * 3 + (rows + columns) // 150) * 4 % 11
    labels[(rows - 120) ** 2 + (columns - 160) ** 2 < 70**2] = 9
    return labels.astype(np.uint8)


def resized(labels, factor, how):
    size = [int(side * factor) for side in labels.shape[::-1]]
    return np.array(Image.fromarray(labels).resize(size, how))


def encoded(labels, kind, **options):
    content = io.BytesIO()
    Image.fromarray(labels).save(content, kind, **options)
    return content.getvalue()


def fault_of(labels, content=None, num_classes=11):
    content = encoded(labels, 'PNG') if content is None else content
    return label_map_fault(dict(gt_seg_map=labels), content, num_classes, [255])


LOSSY = dict(
    jpeg=('JPEG', dict(quality=75)),
    jpeg_of_the_best_quality=('JPEG', dict(quality=100)),
    webp=('WEBP', dict(quality=80)),
)


@pytest.mark.parametrize(('kind', 'options'), LOSSY.values(), ids=LOSSY)
def test_a_label_map_in_a_lossy_format(kind, options):
    content = encoded(label_map(), kind, **options)
    labels = np.array(Image.open(io.BytesIO(content)))
    assert (labels if labels.ndim == 2 else labels[..., 0]).tolist() != label_map().tolist()
    for num_classes in (11, 256):  # More classes are no remedy.
        fault = fault_of(labels, content, num_classes)
        assert kind.lower() in fault.found.lower()
        assert 'PNG' in fault.remedy
        assert 'num_classes' not in fault.remedy


def test_lossless_formats_are_good():
    for kind, options in (('PNG', {}), ('BMP', {}), ('TIFF', {}), ('WEBP', dict(lossless=True))):
        assert fault_of(label_map(), encoded(label_map(), kind, **options)) is None


BLURRED = dict(
    bilinear=lambda labels: resized(labels, 0.7, Image.BILINEAR),
    bilinear_larger=lambda labels: resized(labels, 2, Image.BILINEAR),
    bicubic=lambda labels: resized(labels, 0.5, Image.BICUBIC),
    area=lambda labels: resized(labels, 0.45, Image.BOX),
    lanczos=lambda labels: resized(labels, 1.5, Image.LANCZOS),
)


@pytest.mark.parametrize('change', BLURRED.values(), ids=BLURRED)
def test_a_label_map_that_was_interpolated(change):
    assert blurred_fault(change(label_map()))
    wide = change(np.where(label_map() > 5, 250, label_map()).astype(np.uint8))
    assert 'interpolates' in fault_of(wide).found


def test_a_label_map_drawn_with_anti_aliasing():
    drawn = resized(255 * (label_map((960, 1280)) == 9).astype(np.uint8), 0.25, Image.LANCZOS)
    fault = fault_of(drawn, num_classes=2)
    assert 'anti-aliasing' in fault.found
    assert 'number of classes' not in fault.remedy


@pytest.mark.parametrize('factor', [0.4, 0.7, 1, 2])
def test_a_label_map_with_sharp_edges_is_good(factor):
    assert blurred_fault(resized(label_map(), factor, Image.NEAREST)) is None
    assert blurred_fault(np.full((9, 9), 3)) is None


def test_real_label_maps_are_sharp(real_data):
    files = [*(real_data / 'ade').rglob('*.png'), *(real_data / 'camvid').rglob('*.png')]
    assert len(files) > 700
    for file in files[::20]:
        assert blurred_fault(np.array(Image.open(file))) is None


def test_a_blurred_label_map_whose_labels_are_all_classes_is_a_warning(scenes, examine):
    cfg, root = scenes('mmseg')
    for split in ('training', 'validation'):
        relabel(root, split, lambda labels: resized(resized(labels, 0.75, 2), 4 / 3, 2))
    _, problems, warnings = examine(cfg)
    assert not problems
    assert [each for each in warnings if '(train_dataloader.dataset)' in each and 'between' in each]
