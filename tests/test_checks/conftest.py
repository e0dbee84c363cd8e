"""The generated scenes as data sets that a test may change, and what the checks say of them."""

import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from mmcloformer.checks.examine import check_dataset
from mmcloformer.checks.problem import render
from tests.conftest import ROOT

LAYOUTS = dict(mmdet='coco', mmseg='ade20k', mmpretrain='imagenet')
CONFIGS = dict(
    mmdet='retinanet_cloformer_xxs', mmseg='semantic-fpn_cloformer_xxs', mmpretrain='cloformer_xxs'
)


@pytest.fixture
def scenes(shapes, tmp_path):
    """Return a function from a host to a demo's config and a copy of its data."""

    def scenes(host, name=None):
        root = tmp_path / LAYOUTS[host]
        if not root.exists():
            shutil.copytree(shapes / LAYOUTS[host], root)
        cfg = Config.fromfile(ROOT / f'configs/demo/{name or CONFIGS[host]}_shapes.py')
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
        if host == 'mmdet':
            for split in ('val', 'test'):
                cfg[f'{split}_evaluator'].ann_file = str(coco_file(root, 'val'))
        return cfg, root

    return scenes


@pytest.fixture
def rewrite():
    """Change the content of a copy's annotation file."""

    def rewrite(root, change, split='train'):
        file = coco_file(root, split)
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return rewrite


@pytest.fixture
def examine():
    """Examine data sets; return the samples, and problems and warnings as they are printed."""

    def examine(cfg):
        samples, problems, warnings = check_dataset(cfg, workers=0)
        return samples, render(problems), render(warnings)

    return examine


def coco_file(root, split):
    return Path(root, 'annotations', f'instances_{split}2017.json')
