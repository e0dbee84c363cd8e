"""Runs each kind of unusual file through the data set, pipeline, network and evaluator of a host.

`check_dataset` must report exactly what harms these. Its own tests are in `test_examine.py`.
"""

import copy
import functools
import re
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, FUNCTIONS, init_default_scope

from mmcloformer.apis.config import build_model
from mmcloformer.checks.crashes import explain_crashes
from mmcloformer.datasets.store import write_shapes
from tests.conftest import ROOT

from .bad_kinds import KINDS

CONFIGS = dict(
    mask=('coco', 'mask-rcnn_cloformer_xxs'),
    box=('coco', 'retinanet_cloformer_xxs'),
    seg=('ade20k', 'semantic-fpn_cloformer_xxs'),
    cls=('imagenet', 'cloformer_xxs'),
)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp('whole') / 'shapes'
    write_shapes(root, num_train=3, num_val=2, size=64)
    return root


@functools.cache
def _read_configs(layout, name):
    folder = ROOT / 'configs'
    return [
        Config.fromfile(folder / path) for path in (f'demo/{name}_shapes.py', f'{name}_{layout}.py')
    ]


def small_config(host, root):
    """The recipe's loading and augmentation at 64x64, on a copy of the scenes."""
    layout, name = CONFIGS[host]
    cfg, recipe = copy.deepcopy(_read_configs(layout, name))
    for split in ('train', 'val'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = f'{root}/'
        dataset.pipeline = recipe[f'{split}_dataloader'].dataset.pipeline
        for step in dataset.pipeline:
            for size in ('scale', 'crop_size', 'size'):
                if size in step:
                    step[size] = 64 if host == 'cls' else (64, 64)
    cfg.test_dataloader = cfg.val_dataloader
    if layout == 'coco':
        cfg.val_evaluator.ann_file = f'{root}/annotations/instances_val2017.json'
        cfg.test_evaluator = cfg.val_evaluator
    if host == 'seg':
        cfg.model.data_preprocessor.size = (64, 64)
    return cfg


@pytest.fixture
def corrupted(whole, tmp_path):
    """Return a function from a kind to the config of its host, with one corrupted file."""

    def corrupted(kind):
        root = shutil.copytree(whole / CONFIGS[kind.host][0], tmp_path / 'data')
        kind.corrupt(kind.host, root, kind.split)
        return small_config(kind.host, root)

    return corrupted


@pytest.fixture(scope='module')
def model():
    """The host's network, built once for all of its kinds."""
    models = {}

    def model(host, cfg):
        if host not in models:
            torch.manual_seed(0)
            models[host] = build_model(cfg)
        return models[host]

    return model


def host_error(cfg, split, build_model):
    """Load, and train on or evaluate two samples; return the error of the host, if any."""
    init_default_scope(cfg.default_scope)
    np.random.seed(0)
    try:
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        samples = [dataset[0], dataset[1]]
        collate = 'default' if cfg.default_scope == 'mmpretrain' else 'pseudo'
        collate = FUNCTIONS.get(f'{collate}_collate')
        model = build_model(cfg).train(split == 'train')
        if split == 'train':
            losses = model(**model.data_preprocessor(collate(samples), True), mode='loss')
            total, _ = model.parse_losses(losses)
            total.backward()
            assert total.isfinite()
            return None
        evaluator = Evaluator(cfg.val_evaluator)
        evaluator.dataset_meta = dataset.metainfo
        with torch.no_grad():
            for sample in samples:
                batch = collate([sample])
                evaluator.process(model.val_step(batch), batch)
        evaluator.evaluate(2)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: f'{kind.host}-{kind.split}-{kind.name}')
def test_what_harms_the_host_is_reported(kind, corrupted, model, examine):
    cfg = corrupted(kind)
    problems = examine(cfg)[1]
    assert bool(problems) == (kind.reported is not None)
    for problem in problems:
        assert re.search(kind.reported, problem)
        assert kind.split in problem
    error = host_error(cfg, kind.split, lambda cfg: model(kind.host, cfg))
    assert bool(error) == kind.crashes, error
    if error:
        named = pytest.raises(SystemExit, match='check_dataset')
        with named, explain_crashes(cfg, 'config.py'):
            raise error
