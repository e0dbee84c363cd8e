"""Annotation files against config and images; every file is the generated set's, then changed."""

import copy
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import DATASETS, METRICS
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


@pytest.fixture(scope='module')
def whole(shapes):
    cfg = Config.fromfile(ROOT / 'configs/mask-rcnn_cloformer_xxs_custom.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes}/coco/'
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = f'{shapes}/coco/annotations/instances_val2017.json'
    return cfg


@pytest.fixture
def cfg(whole):
    return copy.deepcopy(whole)


@pytest.fixture
def rewrite(cfg, shapes, tmp_path):
    """Give a data set, and the evaluator, another annotation file."""

    def rewrite(change, split='train'):
        content = json.loads((shapes / f'coco/annotations/instances_{split}2017.json').read_text())
        change(content)
        file = tmp_path / f'changed_{split}.json'
        file.write_text(json.dumps(content, ensure_ascii=False))
        cfg[f'{split}_dataloader'].dataset.ann_file = str(file)
        if split == 'val':
            cfg.val_evaluator.ann_file = str(file)

    return rewrite


def found(cfg, splits=('train', 'val')):
    return list(coco_problems(ConfigView(cfg), splits))


def errors(cfg):
    return '\n'.join(render(each for each in found(cfg) if each.severity == 'error'))


def test_good_data_pass(cfg):
    assert not found(cfg)
    assert not found(cfg, ('test',))


def update(key, index, **fields):
    """Return a change of one entry of a file."""
    return lambda content: content[key][index].update(fields)


def without(key, index, field):
    return lambda content: content[key][index].pop(field)


def name_alike(content, name='ring'):
    """As Roboflow exports a super-category: it has the id 0 and the name of the first class."""
    content['categories'].insert(0, dict(id=0, name=name, supercategory='none'))


def as_corners(content):
    for each in content['annotations']:
        x, y, w, h = each['bbox']
        each['bbox'] = [x, y, x + w, y + h]


def share_an_id(content):
    content['images'][1]['id'] = 3
    for each in content['annotations']:
        each['image_id'] = max(each['image_id'], 3)


BOX = 'annotation 4: its bbox is not four finite numbers'
FORMAT = "not in COCO's format: "
FAULTS = [
    (name_alike, 'several categories are called ring'),
    (update('images', 1, file_name='9.png'), '1 of 8 images are not in'),
    (update('images', 1, file_name='a/b/9.png'), 'train2017/: a/b/9.png'),
    (update('images', 1, file_name='a\\2.png'), 'a\\2.png; put them there'),
    (update('images', 1, file_name=None), f'{FORMAT}image 2: file_name is not a text'),
    (update('images', 1, file_name=['a.png']), f'{FORMAT}unhashable'),
    (share_an_id, 'image 3: several files have this id'),
    (
        update('images', 1, height=None),
        'image 2: its height is not a number of pixels; add or correct it',
    ),
    (without('images', 1, 'width'), 'image 2: its width'),
    (update('annotations', 3, image_id=77), 'annotation 4: its image_id is not in the list'),
    (update('annotations', 3, category_id='a'), 'annotation 4: its category_id is not in the list'),
    (without('annotations', 3, 'category_id'), 'category_id; the list entries 3 (from 0) lack'),
    (update('annotations', 3, category_id=[1]), f'{FORMAT}unhashable'),
    (lambda content: content['annotations'].append(None), 'annotations need the fields id'),
    (update('annotations', 3, bbox=[1e999, 5, 9, 9]), BOX),
    (update('annotations', 3, bbox=[5, math.nan, 9, 9]), BOX),
    (update('annotations', 3, bbox=['1', 5, 9, 9]), BOX),
    (update('annotations', 3, bbox=[5, 9, 9]), BOX),
    (without('annotations', 3, 'bbox'), BOX),
    (without('annotations', 3, 'area'), 'annotation 4: its area is not a number'),
    (update('annotations', 3, area='9'), 'annotation 4: its area is not a number'),
    (lambda content: [each.update(area=0) for each in content['annotations']], 'host drops'),
    (lambda content: [each.update(id=7) for each in content['annotations']], 'annotation 7: sev'),
    (as_corners, 'fit into it as corners x1, y1, x2, y2; a bbox is [x, y, width, height]'),
    (lambda content: content.pop('images'), f'{FORMAT}it has no list of images'),
    (lambda content: content.pop('categories'), f'{FORMAT}it has no list of categories'),
    (lambda content: content['annotations'].clear(), 'all 8 images are left out of training'),
]


@pytest.mark.parametrize(('change', 'words'), FAULTS)
def test_a_fault_is_found(cfg, rewrite, tmp_path, change, words):
    rewrite(change)
    (text,) = errors(cfg).splitlines()
    assert text.startswith(f'{tmp_path}/changed_train.json (train_dataloader.dataset): ')
    assert words in text


HARMLESS = [
    update('annotations', 3, attributes=dict(image_id=99, category_id=99, bbox=[None])),
    update('annotations', 3, bbox=[5, 1.5e-5, 9, 9]),
    update('annotations', 3, ignore=True, category_id=99, image_id=99, bbox=None),
    lambda content: content['images'].append(content['images'][0]),
    lambda content: content['categories'].extend([dict(id=i, name='cells') for i in (7, 8)]),
    lambda content: content.update(info='Größe'),
]


@pytest.mark.parametrize('change', HARMLESS)
def test_what_the_host_takes_passes(cfg, rewrite, change):
    rewrite(change)
    assert errors(cfg) == ''


def test_images_without_labels_need_no_categories(cfg, rewrite):
    rewrite(lambda content: content.update(annotations=[], categories=[]))
    cfg.train_dataloader.dataset.filter_cfg = None
    assert not found(cfg)
    assert len(DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))) == 8


def test_all_faults_are_listed_at_once(cfg, rewrite):
    def change(content):
        for each in content['annotations'][:9]:
            each['category_id'] = 999
        content['annotations'][9]['bbox'] = None
        content['images'][2].pop('height')

    rewrite(change)
    text = errors(cfg)
    assert 'annotation 1, 2, 3, 4, 5, 6, 7, 8, ... (9 in all): its category_id' in text
    assert 'annotation 10: its bbox' in text
    assert 'image 3: its height' in text


def test_a_misspelt_class(cfg):
    cfg.train_dataloader.dataset.metainfo.classes = ('ring', 'sqare', 'star', 'triangle')
    text = errors(cfg)
    assert 'no category is called sqare; there are ring, square, star, triangle' in text
    assert 'instances_train2017.json (train_dataloader.dataset)' in text
    assert 'instances_val2017.json' not in text
    del cfg.val_dataloader.dataset.metainfo
    assert '(val_dataloader.dataset): no category is called person, bicycle' in errors(cfg)


def test_another_order_of_classes_is_refused_since_the_host_would_swap_them(cfg):
    cfg.train_dataloader.dataset.metainfo.classes = CLASSES[::-1]
    assert f'write them as {CLASSES}' in errors(cfg)
    labels = []
    for classes in (CLASSES, CLASSES[::-1]):
        cfg.train_dataloader.dataset.metainfo.classes = classes
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        labels.append(
            [instance['bbox_label'] for instance in dataset.get_data_info(0)['instances']]
        )
    assert labels[0] == labels[1]


def test_a_part_of_the_categories_passes(cfg):
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.metainfo.classes = CLASSES[1:3]
    assert errors(cfg) == ''


def test_a_back_slash_in_the_name_of_a_file_passes(cfg, rewrite, shapes, tmp_path):
    folder = shutil.copytree(shapes / 'coco' / 'train2017', tmp_path / 'images')
    (folder / '000000000002.png').rename(folder / 'below\\2.png')
    rewrite(update('images', 1, file_name='below\\2.png'))
    cfg.train_dataloader.dataset.data_prefix.img = str(folder)
    check_data(cfg, ('train',))


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32'])
def test_a_byte_order_mark_is_named_and_the_rest_is_checked(cfg, rewrite, encoding):
    rewrite(update('images', 1, height=None))
    file = Path(cfg.train_dataloader.dataset.ann_file)
    file.write_text(file.read_text(), encoding=encoding)
    text = errors(cfg)
    assert f'{file} (train_dataloader.dataset): ' in text
    assert 'save it as UTF-8' in text
    assert 'image 2: its height' in text


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (lambda text: text.encode('cp1252'), "'utf-8' codec can't decode"),
        (lambda text: text[: len(text) // 2].encode(), ''),
    ],
)
def test_a_file_that_cannot_be_parsed(cfg, rewrite, damage, words):
    rewrite(lambda content: content.update(info='Größe'))
    file = Path(cfg.train_dataloader.dataset.ann_file)
    file.write_bytes(damage(file.read_text()))
    assert f'{FORMAT}{words}' in errors(cfg)


def test_objects_that_the_host_drops_are_told(cfg, rewrite):
    def change(content):
        content['annotations'][2].update(area=0)
        content['annotations'][3].update(bbox=[900, 900, 9, 9])

    rewrite(change)
    (warning,) = found(cfg)
    assert (warning.severity, warning.found[:19]) == ('warning', 'annotation 3, 4: th')
    # In one of several files, or in validation, all may be.
    rewrite(lambda content: [each.update(area=0) for each in content['annotations']])
    dataset = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset] * 2)
    assert {each.severity for each in found(cfg)} == {'warning'}


def test_only_what_reaches_the_loading_step_needs_a_mask(cfg, rewrite):
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    cfg.train_dataloader.dataset.pipeline[1] = load
    rewrite(lambda content: content['annotations'][2].update(area=0, segmentation=[]))
    assert [each.severity for each in found(cfg)] == ['warning']


def test_masks_that_are_missing_or_ignored(cfg, rewrite):
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    cfg.train_dataloader.dataset.pipeline[1] = load
    assert not found(cfg)
    load['poly2mask'] = False
    cfg.train_dataloader.dataset.pipeline[1] = load
    (warning,) = found(cfg)
    assert (warning.severity, 'ignores run lengths' in warning.found) == ('warning', True)
    rewrite(lambda content: [each.pop('segmentation') for each in content['annotations']])
    assert 'it has no mask (segmentation)' in errors(cfg)
    load['with_mask'] = False
    cfg.train_dataloader.dataset.pipeline[1] = load
    assert not found(cfg)


def test_images_that_are_left_out_need_not_exist(cfg, rewrite):
    extra = dict(id=99, file_name='absent.png', height=9, width=9)
    rewrite(lambda content: content['images'].append(extra))
    dataset = cfg.train_dataloader.dataset
    for filters in (dict(filter_empty_gt=True), dict(min_size=10)):
        dataset.filter_cfg = filters
        assert not found(cfg)
    dataset.filter_cfg = None
    assert '1 of 9 images are not in' in errors(cfg)
    dataset.indices = 2
    assert not found(cfg)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda names: names.reverse(), 'the order in the file gives the classes their numbers'),
        (lambda names: names.remove('star'), 'no category is called star'),
    ],
)
def test_other_classes_in_an_evaluators_own_file(cfg, rewrite, change, words):
    def rename(content):
        names = list(CLASSES)
        change(names)
        content['categories'] = [dict(id=i, name=name) for i, name in enumerate(names, 1)]

    loaded = cfg.val_dataloader.dataset.ann_file
    rewrite(rename, 'val')
    cfg.val_dataloader.dataset.ann_file = loaded
    (problem,) = found(cfg)
    assert problem.field == 'val_evaluator'
    assert words in problem.found


def test_wrapped_datasets_are_found(cfg):
    broken = cfg.train_dataloader.dataset.copy()
    broken.metainfo = dict(classes=('cube',))
    whole = dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset, broken])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=whole)
    assert 'no category is called cube' in errors(cfg)


def test_other_back_ends_and_other_formats_are_left_to_the_host(cfg):
    cfg.train_dataloader.dataset.data_root = 's3://bucket/'
    cfg.val_dataloader.dataset.update(type='VOCDataset', ann_file='absent.txt')
    assert not found(cfg)
    cfg.default_scope = 'mmpretrain'
    assert not found(cfg)


def test_an_image_may_be_a_url(cfg, rewrite):
    def change(content):
        for image in content['images']:
            image['file_name'] = f'http://localhost/{image["id"]}.png'

    rewrite(change)
    assert 'are not in' in errors(cfg)  # The host joins it with the folder.
    cfg.train_dataloader.dataset.update(data_root='', data_prefix=dict(img=''))
    assert errors(cfg) == ''


def test_a_file_of_lvis_is_left_to_its_own_classes(cfg, rewrite):
    """It has no names of files and no crowds."""

    def change(content):
        for image in content['images']:
            image['coco_url'] = f'http://images.cocodataset.org/{image.pop("file_name")}'
        for each in content['annotations']:
            del each['iscrowd']

    rewrite(change, 'val')
    cfg.val_dataloader.dataset.type = 'LVISV1Dataset'
    cfg.val_evaluator.type = 'LVISMetric'
    assert not found(cfg)


def test_images_in_a_data_base_are_not_looked_for(cfg):
    dataset = cfg.train_dataloader.dataset
    dataset.data_prefix.img = 'absent/'
    assert 'images are not in' in errors(cfg)
    dataset.pipeline[0].backend_args = dict(backend='lmdb', db_path='images.lmdb')
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


@pytest.mark.parametrize('text', [False, True])
@pytest.mark.parametrize('first', [0, 0.0, 1, '0', '1', 'a', None])
def test_ids_that_the_evaluation_does_not_count(cfg, rewrite, first, text):
    kept = {}

    def change(content):
        numbers = range(2, 999)
        numbered(content, [first, *(map(str, numbers) if text else numbers)])
        kept.update(content)

    rewrite(change, 'val')
    try:
        is_right = average_precision(kept) > 0.999
    except ValueError:
        is_right = False
    assert [each.field for each in found(cfg)] == ['val_evaluator'] * (not is_right)


@pytest.mark.parametrize('kind', ['CocoMetric', 'LVISMetric', 'FasterCocoMetric'])
def test_an_id_0_is_found_for_each_metric_of_pycocotools(cfg, rewrite, kind):
    if METRICS.get(kind) is None:
        pytest.skip(f'the upstream stack has no {kind}')
    rewrite(lambda content: numbered(content, range(999)), 'val')
    cfg.val_evaluator.type = kind
    assert [each.field for each in found(cfg)] == ['val_evaluator']


def test_an_id_0_that_no_evaluator_reads_passes(cfg, rewrite):
    rewrite(lambda content: numbered(content, range(999)))
    rewrite(lambda content: numbered(content, range(999)), 'val')
    cfg.val_evaluator.format_only = True
    assert not found(cfg)
    cfg.val_evaluator = dict(type='CocoMetric')  # It writes a file of its own.
    assert not found(cfg)


def compress(each, size, order='F'):
    mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(each['segmentation'], *size)))
    runs = coco_mask.encode(np.asfortranarray(mask if order == 'F' else mask.T))
    each['segmentation'] = dict(size=list(size), counts=runs['counts'].decode())


def write_runs(each, size):
    """Write the rectangle as run lengths down the columns, the first of zeros."""
    x, y, w, h = each['bbox']
    counts = [x * size[0] + y, *[h, size[0] - h] * w]
    counts[-1] += size[0] * size[1] - sum(counts)
    each['segmentation'] = dict(size=list(size), counts=counts)


def mark_crowd(each, size):
    """Make every other object a crowd, with its mask elsewhere."""
    if each['id'] % 2:
        each['iscrowd'] = 1
        compress(each, size, 'C')


def moved(change):
    """Change the points of polygons."""

    def move(each, size):
        each['segmentation'] = [
            np.ravel(change(np.reshape(part, (-1, 2)), size)).tolist()
            for part in each['segmentation']
        ]

    return move


MISPLACED = dict(
    row_major=lambda each, size: compress(each, size, 'C'),
    swapped=moved(lambda points, size: points[:, ::-1]),
    halved=moved(lambda points, size: points / 2),
    fractions=moved(lambda points, size: points / size),
)
PLACED = dict(
    polygons=lambda each, size: None,
    rounded=moved(lambda points, size: np.round(points) + 1),
    column_major=write_runs,
    compressed=compress,
    amodal=lambda each, size: each.update(bbox=[0, 0, size[1], size[0]]),
    crowd=mark_crowd,
    two_parts=lambda each, size: each['segmentation'].append(2 * each['segmentation'][0][:4]),
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
    (problem,) = found(cfg)
    assert (problem.field, problem.severity) == ('train_dataloader.dataset', 'error')
    assert 'outside of their boxes' in problem.found
    cfg.train_dataloader.dataset.pipeline[1].with_mask = False
    assert not found(cfg)


def test_some_misplaced_masks_are_a_warning(cfg, rewrite):
    rewrite(lambda content: replace_masks(content, MISPLACED['halved'], share=0.4))
    assert [each.severity for each in found(cfg)] == ['warning']


@pytest.mark.parametrize('change', PLACED.values(), ids=PLACED)
def test_masks_in_their_boxes_pass(cfg, rewrite, change):
    rewrite(lambda content: replace_masks(content, change))
    assert not [each for each in found(cfg) if 'outside' in each.found]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_every_object_is_a_crowd(cfg, rewrite, split):
    rewrite(lambda content: [each.update(iscrowd=1) for each in content['annotations']], split)
    with pytest.raises(DataError, match=r'objects have iscrowd=1, so .* set iscrowd=0'):
        check_data(cfg, ('train', 'val'))
    assert [each.field for each in found(cfg)] == [f'{split}_dataloader.dataset']


@pytest.mark.parametrize(
    ('severities', 'rows'),
    [
        ([], ([0, 0, 100, 80], [0, 0, 99, 80], [10, 5, 90, 75])),  # Objects that fill the image.
        ([], ([60, 50, 41, 31], [0, 0, 101, 81])),  # Rounded.
        ([], ([10, 10, 95, 75], [0, 0, 50, 50], [20, 20, 30, 30])),  # One that is cut off.
        ([], ([1, 2, 3], [1, 2, None, 4])),  # Another check reports these.
        (['warning'], ([60, 50, 90, 20], [70, 10, 60, 20], [20, 60, 10, 60])),  # All cut off.
        # Large ones that end a little outside.
        (['warning'], ([4, 5, 100, 80], [3, 6, 100, 79], [5, 4, 99, 80], [2, 3, 101, 80])),
    ],
)
def test_boxes_at_the_edge(cfg, rewrite, severities, rows):
    def change(content):
        content['images'] = [dict(content['images'][0], id=1, width=100, height=80)]
        content['annotations'] = [
            dict(id=i, image_id=1, category_id=1, bbox=list(row), area=9, iscrowd=0)
            for i, row in enumerate(rows, 1)
        ]

    rewrite(change)
    assert [each.severity for each in found(cfg) if 'edge' in each.found] == severities
