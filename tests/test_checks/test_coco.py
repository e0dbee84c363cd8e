"""Annotation files against config and images; every file is the generated set's, then broken."""

import json
import math
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from mmcloformer.checks.coco import coco_problems
from mmcloformer.checks.presence import check_data
from mmcloformer.datasets.shapes import CLASSES
from mmcloformer.errors import DataError
from tests.conftest import ROOT

TRAIN = 'annotations/instances_train2017.json'


@pytest.fixture
def cfg(shapes):
    cfg = Config.fromfile(ROOT / 'configs/retinanet_cloformer_xxs_custom.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes}/coco/'
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = f'{shapes}/coco/annotations/instances_val2017.json'
    return cfg


@pytest.fixture
def rewrite(cfg, shapes, tmp_path):
    """Give the training set another annotation file."""

    def rewrite(change, **layout):
        content = json.loads((shapes / 'coco' / TRAIN).read_text())
        change(content)
        file = tmp_path / 'changed.json'
        file.write_text(json.dumps(content, **layout))
        cfg.train_dataloader.dataset.ann_file = str(file)

    return rewrite


def message(cfg, splits=('train', 'val')):
    problems = list(coco_problems(cfg, splits))
    assert problems
    return '\n'.join(problems)


def test_good_data_pass(cfg):
    assert not [*coco_problems(cfg, ('train', 'val'))]
    assert not [*coco_problems(cfg, ('test',))]


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
    assert ', ...;' in text


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
    assert not [*coco_problems(cfg, ('train',))]


def test_a_part_of_the_categories_passes(cfg):
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.metainfo.classes = CLASSES[1:3]
    cfg.model.bbox_head.num_classes = 2
    assert not [*coco_problems(cfg, ('train', 'val'))]


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
    assert 'below\\2.png; \\ separates folders only on Windows: write / in file_name' in text


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
        assert f'/changed.json (train_dataloader.dataset): {words}' in text


@pytest.mark.parametrize('layout', [dict(indent=2), dict(separators=(',', ':'))])
def test_layout_and_lists_of_the_same_names_elsewhere_do_not_matter(cfg, rewrite, layout):
    def change(content):
        content['info'] = dict(images=[1], categories=[], note='"images": [')
        content['images'][0]['categories'] = ['indoor']

    rewrite(change, **layout)
    assert not [*coco_problems(cfg, ('train',))]


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
    assert not [*coco_problems(cfg, ('train', 'val'))]
    cfg.default_scope = 'mmpretrain'
    cfg.model = dict(head=dict(num_classes=3))
    assert not [*coco_problems(cfg, ('train', 'val'))]


def test_a_presence_check_goes_on_to_this_one(cfg):
    cfg.model.bbox_head.num_classes = 80
    with pytest.raises(DataError, match=r'model\.bbox_head'):
        check_data(cfg, ('train', 'val'))
