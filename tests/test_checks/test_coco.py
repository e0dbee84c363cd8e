"""Annotation files against config and images; every file is the generated set's, then broken."""

import copy
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import METRICS
from mmengine.config import Config
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmcloformer.checks.coco import coco_problems
from mmcloformer.checks.presence import check_data
from mmcloformer.checks.problem import render
from mmcloformer.config import ConfigView
from mmcloformer.datasets.shapes import CLASSES
from mmcloformer.errors import DataError
from tests.conftest import ROOT
from tests.spelling import SPELLINGS, spell

TRAIN = 'annotations/instances_train2017.json'


@pytest.fixture
def cfg(shapes):
    cfg = Config.fromfile(ROOT / 'configs/mask-rcnn_cloformer_xxs_custom.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes}/coco/'
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = f'{shapes}/coco/annotations/instances_val2017.json'
    return cfg


@pytest.fixture
def rewrite(cfg, shapes, tmp_path):
    """Give a data set, and the evaluator, another annotation file."""

    def rewrite(change, split='train', **layout):
        content = json.loads((shapes / 'coco' / TRAIN.replace('train', split)).read_text())
        change(content)
        file = tmp_path / f'changed_{split}.json'
        file.write_text(json.dumps(content, **layout))
        cfg[f'{split}_dataloader'].dataset.ann_file = str(file)
        if split == 'val':
            cfg.val_evaluator.ann_file = str(file)

    return rewrite


def found(cfg, splits=('train', 'val'), thorough=False):
    return list(coco_problems(ConfigView(cfg), splits, thorough))


def message(cfg, splits=('train', 'val')):
    problems = found(cfg, splits)
    assert problems
    return '\n'.join(render(problems))


def test_good_data_pass(cfg):
    assert not found(cfg)
    assert not found(cfg, ('test',))


def test_a_misspelt_class(cfg):
    cfg.train_dataloader.dataset.metainfo.classes = ('ring', 'sqare', 'star', 'triangle')
    text = message(cfg)
    assert 'no category is called sqare; there are ring, square, star, triangle' in text
    assert 'instances_train2017.json (train_dataloader.dataset)' in text
    assert 'instances_val2017.json' not in text


def test_the_hosts_default_classes_are_not_taken_for_the_users(cfg):
    del cfg.val_dataloader.dataset.metainfo
    text = message(cfg)
    assert '(val_dataloader.dataset): no category is called person, bicycle' in text
    assert ', ...; there are' in text


def test_another_order_of_classes_is_refused_since_the_host_would_swap_them(cfg):
    from mmdet.registry import DATASETS

    cfg.train_dataloader.dataset.metainfo.classes = CLASSES[::-1]
    assert f'write them as {CLASSES}' in message(cfg)
    labels = []
    for classes in (CLASSES, CLASSES[::-1]):
        cfg.train_dataloader.dataset.metainfo.classes = classes
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        labels.append(
            [instance['bbox_label'] for instance in dataset.get_data_info(0)['instances']]
        )
    assert labels[0] == labels[1]


def share_a_name(content, used, name='ring'):
    """As Roboflow exports a super-category: it has the id 0 and the name of the first class."""
    content['categories'].insert(0, dict(id=0, name=name, supercategory='none'))
    if used:
        content['annotations'][0]['category_id'] = 0


def test_an_unused_category_of_the_same_name_is_to_be_deleted(cfg, rewrite):
    rewrite(lambda content: share_a_name(content, used=False))
    text = message(cfg)
    assert 'the categories 0, 1 are all called ring' in text
    assert 'no annotation has 0, so delete it from categories' in text
    assert 'write them as' not in text


def test_used_categories_of_the_same_name_are_to_be_merged(cfg, rewrite):
    rewrite(lambda content: share_a_name(content, used=True))
    assert 'rename them, or give one of them to all annotations' in message(cfg)


def test_of_unused_categories_of_one_name_one_is_kept(cfg, rewrite):
    def change(content):
        share_a_name(content, used=False, name='triangle')
        unused = [each for each in content['annotations'] if each['category_id'] != 4]
        content['annotations'] = unused

    rewrite(change)
    text = message(cfg)
    assert 'no annotation has 0, so delete it' in text
    assert "write them as ('triangle', 'ring', 'square', 'star')" in text


def test_a_category_of_the_same_name_that_is_not_trained_passes(cfg, rewrite):
    def change(content):
        content['categories'] += [dict(id=number, name='cells') for number in (7, 8)]

    rewrite(change)
    assert not found(cfg, ('train',))


def test_a_part_of_the_categories_passes(cfg):
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.metainfo.classes = CLASSES[1:3]
    cfg.model.roi_head.bbox_head.num_classes = 2
    assert not [each for each in found(cfg) if each.severity == 'error']


@pytest.mark.parametrize('name', ['000000000002.png', 'sub/folder/000000000002.png'])
def test_a_missing_image(cfg, rewrite, name):
    def change(content):
        content['images'][1]['file_name'] = name.replace('2', '9')

    rewrite(change)
    text = message(cfg)
    assert '1 of 8 images are not in' in text
    assert name.replace('2', '9') in text


def test_paths_as_windows_writes_them(cfg, rewrite):
    def change(content):
        content['images'][1]['file_name'] = 'below\\2.png'

    rewrite(change)
    text = message(cfg)
    assert 'below\\2.png; write / in file_name: \\ separates folders only on Windows' in text


def test_a_back_slash_in_the_name_of_a_file_passes(cfg, rewrite, shapes, tmp_path):
    folder = shutil.copytree(shapes / 'coco' / 'train2017', tmp_path / 'images')
    (folder / '000000000002.png').rename(folder / 'below\\2.png')

    def change(content):
        content['images'][1]['file_name'] = 'below\\2.png'

    rewrite(change)
    cfg.train_dataloader.dataset.data_prefix.img = str(folder)
    check_data(cfg, ('train',))


@pytest.mark.parametrize('name', [None, 7, ['a.png']])
def test_a_file_name_that_is_no_text(cfg, rewrite, name):
    rewrite(lambda content: content['images'][1].update(file_name=name))
    assert "not in COCO's format: image 2: file_name is not a text" in message(cfg)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32'])
def test_a_byte_order_mark_is_named_and_the_rest_is_checked(cfg, rewrite, encoding):
    rewrite(lambda content: content['images'][1].update(file_name='below\\2.png'))
    file = Path(cfg.train_dataloader.dataset.ann_file)
    content = file.read_text()
    file.write_text(content, encoding=encoding)
    text = message(cfg)
    assert f'{file} (train_dataloader.dataset): ' in text
    assert 'save it as UTF-8' in text
    assert 'write / in file_name' in text


def test_another_encoding(cfg, rewrite):
    rewrite(lambda content: content.update(info='Größe'), ensure_ascii=False)
    file = Path(cfg.train_dataloader.dataset.ann_file)
    check_data(cfg, ('train',))
    file.write_text(file.read_text(), encoding='cp1252')
    assert "not in COCO's format: it is not UTF-8" in message(cfg)
    assert f'iconv -f WINDOWS-1252 -t UTF-8 {file}' in message(cfg)


@pytest.mark.parametrize(('known', 'unknown'), [(1, '77'), ('one "1"', '"seventy 7"')])
def test_annotations_of_an_unlisted_image(cfg, rewrite, known, unknown):
    def change(content):
        content['images'][0]['id'] = known
        for annotation in content['annotations']:
            if annotation['image_id'] == 1:
                annotation['image_id'] = known
        content['annotations'][-1]['image_id'] = json.loads(unknown)

    rewrite(change)
    assert f'images that it does not list, image_id {unknown}' in message(cfg)


def test_odd_entries_are_named(cfg, rewrite):
    def change(content):
        for annotation, category in zip(content['annotations'], (999, 'ring', 999), strict=False):
            annotation['category_id'] = category
        content['annotations'][3]['bbox'] = [1e999, 5, 9, 9]
        content['annotations'][4]['bbox'] = [5, math.nan, 9, 9]
        content['annotations'][5]['bbox'] = [5, 1.5e-5, 9, 9]
        content['images'][2].pop('height')
        content['images'][3].update(height=None, width=None)
        content['images'][5]['id'] = content['images'][6]['id']

    rewrite(change)
    text = message(cfg)
    for words in (
        'annotation 1, 3: no category has the id 999,',
        'annotation 2: no category has the id "ring",',
        'annotation 4, 5: its box is not four finite numbers; correct or remove it',
        'image 3, 4: no height; add it, in pixels',
        'image 4: no width; add it, in pixels',
        'image 7: several files have this id',
    ):
        assert f'/changed_train.json (train_dataloader.dataset): {words}' in text


@pytest.mark.parametrize('layout', [dict(indent=2), dict(separators=(',', ':'))])
def test_layout_and_lists_of_the_same_names_elsewhere_do_not_matter(cfg, rewrite, layout):
    def change(content):
        content['info'] = dict(images=[1], categories=[], note='"images": [')
        content['images'][0]['categories'] = ['indoor']

    rewrite(change, **layout)
    assert not found(cfg, ('train',))


@pytest.mark.parametrize('key', ['images', 'categories'])
def test_a_file_in_another_format(cfg, rewrite, key):
    rewrite(lambda content: content.pop(key))
    assert f"not in COCO's format: it has no list of {key}" in message(cfg)


def test_a_cut_off_file(cfg, shapes, tmp_path):
    text = (shapes / 'coco' / TRAIN).read_text()
    file = tmp_path / 'cut.json'
    file.write_text(text[: text.index('"annotations"') - 30])
    cfg.train_dataloader.dataset.ann_file = str(file)
    assert "not in COCO's format" in message(cfg)


def test_wrapped_datasets_are_found(cfg):
    broken = cfg.train_dataloader.dataset.copy()
    broken.metainfo = dict(classes=('cube',))
    whole = dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset, broken])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=whole)
    assert 'no category is called cube' in message(cfg)


def test_other_back_ends_and_other_formats_are_left_to_the_host(cfg):
    cfg.train_dataloader.dataset.data_root = 's3://bucket/'
    cfg.val_dataloader.dataset.update(type='VOCDataset', ann_file='absent.txt')
    assert not found(cfg)
    cfg.default_scope = 'mmpretrain'
    assert not found(cfg)


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_every_spelling_of_a_type_is_checked(cfg, rewrite, spelling):
    def change(content):
        content['annotations'][0].update(category_id=999)
        content['annotations'][1].update(id=0)

    rewrite(change, 'val')
    cfg.val_dataloader.dataset.type = spell('mmdet', 'DATASETS', 'CocoDataset', spelling)
    cfg.val_evaluator.type = spell('mmdet', 'METRICS', 'CocoMetric', spelling)
    cfg.default_scope = None if spelling == 'itself' else 'mmdet'
    if spelling == 'itself':
        cfg.model.type = spell('mmdet', 'MODELS', 'MaskRCNN', spelling)
    assert {each.field for each in found(cfg)} == {'val_dataloader.dataset', 'val_evaluator'}


def average_precision(content):
    """AP of a detector that finds every object."""
    truth = COCO()
    truth.dataset = copy.deepcopy(content)
    truth.createIndex()
    results = [
        dict(image_id=each['image_id'], category_id=each['category_id'], bbox=each['bbox'], score=1)
        for each in content['annotations']
    ]
    evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][..., 0, 2]
    return precision[precision >= 0].mean()


def numbered(content, numbers):
    for each, number in zip(content['annotations'], numbers, strict=False):
        each['id'] = number


@pytest.mark.parametrize('first', [0, 0.0, 1])
def test_an_annotation_with_the_id_0_is_never_found(cfg, rewrite, first):
    kept = {}

    def change(content):
        numbered(content, [first, *range(2, 999)])
        kept.update(content)

    rewrite(change, 'val')
    assert (average_precision(kept) < 0.999) == (first == 0)
    fields = [each.field for each in found(cfg)]
    assert fields == ['val_evaluator'] * (first == 0)
    assert (first == 0) == (len(found(cfg, thorough=True)) == 1)


@pytest.mark.parametrize('kind', ['CocoMetric', 'LVISMetric', 'FasterCocoMetric'])
def test_an_id_0_is_found_for_each_metric_of_pycocotools(cfg, rewrite, kind):
    if METRICS.get(kind) is None:
        pytest.skip(f'the upstream stack has no {kind}')
    rewrite(lambda content: numbered(content, range(999)), 'val')
    cfg.val_evaluator.type = kind
    assert [each.field for each in found(cfg)] == ['val_evaluator']


@pytest.mark.parametrize('first', ['0', '1', 'a', None])
def test_ids_that_are_texts(cfg, rewrite, first):
    kept = {}

    def change(content):
        numbered(content, [first, *map(str, range(2, 999))])
        kept.update(content)

    rewrite(change, 'val')
    try:
        is_right = average_precision(kept) > 0.999
    except ValueError:
        is_right = False
    assert [each.field for each in found(cfg)] == ['val_evaluator'] * (not is_right)


def test_an_id_0_that_no_evaluator_reads_passes(cfg, rewrite):
    rewrite(lambda content: numbered(content, range(999)))
    rewrite(lambda content: numbered(content, range(999)), 'val')
    cfg.val_evaluator.format_only = True
    assert not found(cfg)
    cfg.val_evaluator = dict(type='CocoMetric')  # It writes a file of its own.
    assert not found(cfg)


def mask_of(each, size):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(each['segmentation'], *size)))


def runs(values):
    """Run lengths of a sequence, the first of zeros."""
    edges = np.flatnonzero(np.diff(values, prepend=0, append=1 - values[-1]))
    return np.diff(edges, prepend=0).tolist()


def run_lengths(each, size, order):
    mask = mask_of(each, size)
    each['segmentation'] = dict(size=list(size), counts=runs(mask.ravel(order)))


def compressed(each, size):
    rle = coco_mask.encode(np.asfortranarray(mask_of(each, size)))
    each['segmentation'] = dict(size=list(size), counts=rle['counts'].decode())


def moved(change):
    """Change the points of polygons."""

    def move(each, size):
        each['segmentation'] = [
            np.ravel(change(np.reshape(part, (-1, 2)), size)).tolist()
            for part in each['segmentation']
        ]

    return move


MISPLACED = dict(
    row_major=lambda each, size: run_lengths(each, size, 'C'),
    swapped=moved(lambda points, size: points[:, ::-1]),
    doubled=moved(lambda points, size: points * 2),
    halved=moved(lambda points, size: points / 2),
    fractions=moved(lambda points, size: points / size),
    upside_down=moved(lambda points, size: [0, size[0]] + points * [1, -1]),
)
PLACED = dict(
    polygons=lambda each, size: None,
    rounded=moved(lambda points, size: np.round(points) + 1),
    column_major=lambda each, size: run_lengths(each, size, 'F'),
    compressed=compressed,
    amodal=lambda each, size: each.update(bbox=[0, 0, size[1], size[0]]),
    crowd=lambda each, size: (
        run_lengths(each, size, 'C') if each.update(iscrowd=1) is None and each['id'] % 2 else None
    ),
    two_parts=lambda each, size: each['segmentation'].append(
        [each['bbox'][0], each['bbox'][1]] * 2
        + [each['bbox'][0] + each['bbox'][2], each['bbox'][1] + each['bbox'][3]]
    ),
)


def replace_masks(content, change, share=1):
    """Make the masks rectangles in images that are wider than high, then change them."""
    for image in content['images']:
        image.update(width=160, height=128)
    for index, each in enumerate(content['annotations']):
        x, y, w, h = each['bbox'] = [4 + 7 * (index % 5), 60 + 5 * (index % 6), 40, 24]
        each['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        if index < share * len(content['annotations']):
            change(each, (128, 160))


@pytest.mark.parametrize('change', MISPLACED.values(), ids=MISPLACED)
def test_masks_that_are_not_where_their_boxes_are(cfg, rewrite, change):
    rewrite(lambda content: replace_masks(content, change))
    (problem,) = found(cfg, thorough=True)
    assert (problem.field, problem.severity) == ('train_dataloader.dataset', 'error')
    assert 'outside of their boxes' in problem.found
    cfg.train_dataloader.dataset.pipeline[1].with_mask = False
    assert not found(cfg, thorough=True)


def test_run_lengths_of_rows_are_found_before_training(cfg, rewrite):
    rewrite(lambda content: replace_masks(content, MISPLACED['row_major']))
    assert 'outside of their boxes' in message(cfg)


def test_some_misplaced_masks_are_a_warning(cfg, rewrite):
    rewrite(lambda content: replace_masks(content, MISPLACED['doubled'], share=0.4))
    assert [each.severity for each in found(cfg, thorough=True)] == ['warning']


@pytest.mark.parametrize('change', PLACED.values(), ids=PLACED)
def test_masks_in_their_boxes_pass(cfg, rewrite, change):
    rewrite(lambda content: replace_masks(content, change))
    problems = found(cfg, thorough=True)
    assert not [each for each in problems if 'outside' in each.found]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_every_object_is_a_crowd(cfg, rewrite, split):
    rewrite(lambda content: [each.update(iscrowd=1) for each in content['annotations']], split)
    with pytest.raises(DataError, match=r'objects have iscrowd=1, so .* set iscrowd=0'):
        check_data(cfg, ('train', 'val'))
    assert [each.field for each in found(cfg, thorough=True)] == [f'{split}_dataloader.dataset']


def test_boxes_written_as_corners(cfg, rewrite):
    def change(content):
        for each in content['annotations']:
            x, y, w, h = each['bbox']
            each['bbox'] = [x, y, x + w, y + h]

    rewrite(change)
    rewrite(change, 'val')
    with pytest.raises(DataError, match=r'cross the edge .* a bbox is \[x, y, width, height\]'):
        check_data(cfg, ('train',))
    assert len(found(cfg)) == 2


def boxes(cfg, rewrite, *rows):
    """Severities of the problems of boxes in images of 100x80."""

    def change(content):
        content['images'] = [dict(content['images'][0], id=1, width=100, height=80)]
        content['annotations'] = [
            dict(id=i, image_id=1, category_id=1, bbox=list(row), area=9, iscrowd=0)
            for i, row in enumerate(rows, 1)
        ]

    rewrite(change)
    return [each.severity for each in found(cfg) if 'edge' in each.found]


@pytest.mark.parametrize(
    'rows',
    [
        ([0, 0, 100, 80], [0, 0, 99, 80], [10, 5, 90, 75]),  # Objects that fill the image.
        ([60, 50, 41, 31], [0, 0, 101, 81]),  # Rounded.
        ([10, 10, 95, 75], [0, 0, 50, 50], [20, 20, 30, 30]),  # One that is cut off.
        ([1, 2, 3], [1, 2, None, 4]),
    ],
)
def test_boxes_that_are_good_or_another_checks(cfg, rewrite, rows):
    assert boxes(cfg, rewrite, *rows) == []


@pytest.mark.parametrize(
    'rows',
    [
        # Objects that the image cuts off.
        ([60, 50, 90, 20], [70, 10, 60, 20], [20, 60, 10, 60]),
        # Large ones that end a little outside.
        ([4, 5, 100, 80], [3, 6, 100, 79], [5, 4, 99, 80], [2, 3, 101, 80]),
    ],
)
def test_boxes_over_the_edge_are_no_corners(cfg, rewrite, rows):
    assert boxes(cfg, rewrite, *rows) == ['warning']


def test_a_presence_check_goes_on_to_this_one(cfg):
    cfg.model.roi_head.bbox_head.num_classes = 80
    with pytest.raises(DataError, match='num_classes'):
        check_data(cfg, ('train', 'val'))
