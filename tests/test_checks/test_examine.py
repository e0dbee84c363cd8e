"""Whole examinations; single kinds of bad files are in `test_bad_data.py`."""

import json
import math
import os
import shutil

import pytest
from mmengine.config import Config

from mmcloformer.checks.examine import check_dataset
from mmcloformer.errors import ConfigError, DataError
from tests.conftest import ROOT


def config(name, root):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
    if cfg.default_scope == 'mmdet':
        for split in ('val', 'test'):
            cfg[f'{split}_evaluator'].ann_file = f'{root}/annotations/instances_val2017.json'
    return cfg


@pytest.fixture
def detector(shapes, tmp_path):
    """The config, on data that a test may change."""
    root = shutil.copytree(shapes / 'coco', tmp_path / 'coco')
    return config('demo/retinanet_cloformer_xxs_shapes', root), root


def test_real_photographs_are_good(real_data):
    cfg = config('semantic-fpn_cloformer_xs_ade20k', real_data / 'ade' / 'ADEChallengeData2016')
    assert check_dataset(cfg, workers=1)[:2] == (dict(train=6, val=6), [])
    root = real_data / 'imagenet'
    cfg = config('cloformer_xs_imagenet', root)
    for split in ('train', 'val', 'test'):
        classes = sorted(folder.name for folder in (root / 'train').iterdir())
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=classes)
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 100
    assert check_dataset(cfg, workers=1) == (dict(train=100, val=100), [], [])


@pytest.mark.parametrize(
    ('name', 'layout'),
    [
        ('mask-rcnn_cloformer_xxs', 'coco'),
        ('semantic-fpn_cloformer_xxs', 'ade20k'),
        ('cloformer_xxs', 'imagenet'),
    ],
)
def test_generated_scenes_are_good(name, layout, shapes):
    cfg = config(f'demo/{name}_shapes', shapes / layout)
    samples, problems, warnings = check_dataset(cfg, workers=0)
    assert min(samples.values()) >= 4
    assert not problems
    # 8 scenes are fewer than the 800 that the schedule is for, and happen to have no square.
    assert all('warm-up' in each or ': square. This may' in each for each in warnings)


def test_wrapped_data_sets_are_examined_leaf_by_leaf(detector, shapes):
    cfg, root = detector
    bad = cfg.train_dataloader.dataset
    good = bad | dict(data_root=f'{shapes}/coco/')
    both = dict(type='ConcatDataset', datasets=[good, bad])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=both)
    (root / 'train2017' / '000000000005.png').write_bytes(b'')
    samples, (problem,), _ = check_dataset(cfg, workers=0)
    assert samples == dict(train=16, val=4)
    assert problem.startswith(f'{root}/train2017/000000000005.png: is empty')


def test_a_test_split_of_its_own_is_examined(detector):
    cfg, root = detector
    cfg.test_dataloader.dataset.indices = 2
    (root / 'val2017' / '000000000001.png').write_bytes(b'')
    samples, problems, _ = check_dataset(cfg, workers=0)
    assert samples == dict(train=8, val=4, test=2)
    assert len(problems) == 1


def test_problems_of_many_annotations_are_one_line(detector):
    cfg, root = detector
    file = root / 'annotations' / 'instances_val2017.json'
    content = json.loads(file.read_text())
    for annotation in content['annotations']:
        del annotation['iscrowd']
    file.write_text(json.dumps(content))
    _, problems, _ = check_dataset(cfg, workers=0)
    assert problems == [f'{file}: annotation 1, 2, 3, 4, 5, 6, 7, 8, ...: no iscrowd; add it']


def test_a_corner_that_would_take_all_memory_is_not_drawn(shapes, tmp_path):
    root = shutil.copytree(shapes / 'coco', tmp_path / 'coco')
    for split in ('train', 'val'):
        file = root / 'annotations' / f'instances_{split}2017.json'
        content = json.loads(file.read_text())
        content['annotations'][0]['segmentation'] = [[5, 5, 9, math.nan, 9, 9]]
        file.write_text(json.dumps(content))
    _, problems, _ = check_dataset(config('demo/mask-rcnn_cloformer_xxs_shapes', root), workers=0)
    # The validation set is loaded and scored.
    assert [
        problem.startswith(f'{root}/{where}')
        for problem, where in zip(
            problems, ('train2017/', 'val2017/', 'annotations/instances_val'), strict=True
        )
    ] == [True] * 3
    assert all('its mask has a corner at nan' in problem for problem in problems)


def test_an_evaluators_own_file_is_examined(shapes, tmp_path):
    cfg = config('demo/mask-rcnn_cloformer_xxs_shapes', shapes / 'coco')
    file = tmp_path / 'own.json'
    cfg.val_evaluator.ann_file = str(file)
    content = json.loads((shapes / 'coco/annotations/instances_val2017.json').read_text())
    del content['images'][1]['height']
    file.write_text(json.dumps(content))
    assert check_dataset(cfg, workers=0).problems == [
        f'{file}: image 2: no height; add it, in pixels'
    ]
    content['annotations'].append(None)
    file.write_text(json.dumps(content))
    (problem,) = check_dataset(cfg, workers=0).problems
    assert 'an annotation is no object' in problem


def test_a_negative_number_of_processes(detector):
    with pytest.raises(ConfigError, match='workers is -1; give'):
        check_dataset(detector[0], workers=-1)


def test_a_set_that_cannot_be_built_does_not_hide_the_next(detector):
    cfg, root = detector
    (root / 'annotations' / 'instances_train2017.json').write_text('')
    (root / 'val2017' / '000000000002.png').write_text('text')
    _, problems, _ = check_dataset(cfg, workers=0)
    assert ["not in COCO's format" in problems[0], 'is not an image' in problems[1]] == [True] * 2
    assert len(problems) == 2


def test_classes_that_do_not_fit_are_listed_too(detector):
    cfg, _ = detector
    cfg.model.bbox_head.num_classes = 3
    _, problems, _ = check_dataset(cfg, workers=0)
    assert [problem.partition(':')[0] for problem in problems] == ['model.bbox_head.num_classes']


def test_data_that_are_not_there(detector):
    cfg, root = detector
    shutil.rmtree(root / 'val2017')
    with pytest.raises(DataError, match='data not found'):
        check_dataset(cfg, workers=0)


def test_a_byte_order_mark(detector):
    cfg, root = detector
    for split in ('train', 'val'):
        file = root / 'annotations' / f'instances_{split}2017.json'
        file.write_text(file.read_text(), encoding='utf-8-sig')
    _, problems, _ = check_dataset(cfg, workers=0)
    where = [f'{root}/annotations/instances_{split}2017.json' for split in ('train', 'val')]
    assert [problem.partition(' ')[0] for problem in problems] == where
    assert all('begins with a byte-order mark' in problem for problem in problems)


def test_the_list_of_a_segmentor_from_windows(shapes, tmp_path):
    root = shutil.copytree(shapes / 'ade20k', tmp_path / 'ade20k')
    for folder in ('images', 'annotations'):
        below = root / folder / 'training' / 'below'
        below.mkdir()
        next(iter(sorted((root / folder / 'training').glob('*.*')))).rename(
            below / f'1.{"jpg" if folder == "images" else "png"}'
        )
    (root / 'list.txt').write_text('below\\1\r\n', encoding='utf-8-sig')
    cfg = config('demo/semantic-fpn_cloformer_xxs_shapes', root)
    cfg.val_dataloader = cfg.test_dataloader = None
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    _, problems, _ = check_dataset(cfg, workers=0)
    assert 'list.txt (train_dataloader.dataset.ann_file): begins with a byte-order' in problems[0]
    assert '1 paths have back-slashes' in problems[1]
    (root / 'list.txt').write_text('below\\1\r\n')
    _, problems, _ = check_dataset(cfg, workers=0)
    assert '1 paths have back-slashes, the first is below\\1; write slashes' in problems[0]
    assert f'is missing, {root}/images/training/below/1.jpg exists: write /' in problems[1]
    (root / 'list.txt').write_text('below/1\r\n')
    assert check_dataset(cfg, workers=0).problems == []


def test_a_worker_that_is_killed(detector, monkeypatch):
    """By the system, for want of memory."""
    monkeypatch.setattr(
        'mmcloformer.checks.examine.sample_problems', lambda *_: os.kill(os.getpid(), 9)
    )
    with pytest.raises(DataError, match='want of memory; --workers 1 needs the least'):
        check_dataset(detector[0], workers=1)
