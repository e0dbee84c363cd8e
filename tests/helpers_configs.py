"""The shipped configs, their models, and small batches from their own pipelines."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.runner import Runner

from mmcloformer.apis.config import build_model
from mmcloformer.datasets.shapes import CLASSES
from tests.conftest import ROOT

# Those of configs/small are for real sets that the project may not ship (test_small_sets.py).
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if path.parent.name != 'small')
SIDE = 64
# Replaces every image size that a pipeline names.
SMALL = {
    'Resize': dict(scale=(SIDE, SIDE)),
    'RandomChoiceResize': dict(scales=[(SIDE, SIDE // 2), (SIDE, SIDE)]),
    'RandomResize': dict(scale=(4 * SIDE, SIDE)),
    'RandomCrop': dict(crop_size=(SIDE, SIDE)),
    'RandomResizedCrop': dict(scale=SIDE),
    'ResizeEdge': dict(scale=SIDE),
    'CenterCrop': dict(crop_size=SIDE),
}
FOLDERS = dict(mmdet='coco', mmseg='ade20k', mmpretrain='imagenet')


def processes(path: Path) -> int:
    """Return the number of processes, or GPUs, that a config's batch size is written for."""
    single = path.stem.endswith('_custom') or '_tiny-imagenet' in path.stem
    return 1 if single or path.parent.name == 'demo' else 8


def load(name: str) -> Config:
    """Read `configs/NAME.py`."""
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def build(cfg: Config) -> BaseModel:
    """Build the model as the Runner of a single process does, without loading weights."""
    return revert_sync_batchnorm(build_model(cfg))


def shrink(value: object) -> None:
    """Replace the image sizes of a pipeline, also in steps inside of other steps."""
    if isinstance(value, dict):
        value.update(SMALL.get(value.get('type'), {}))
        value = [*value.values()]
    if isinstance(value, (list, tuple)):
        for each in value:
            shrink(each)


def batch(cfg: Config, split: str, shapes: str) -> dict[str, list[torch.Tensor]]:
    """Load the first two samples of a split through the config's own pipeline at a small size.

    Args:
        cfg: A config of any host; its data loader is changed.
        split: `'train'`, `'val'` or `'test'`.
        shapes: Folder of the generated scenes.
    """
    loader = cfg[f'{split}_dataloader']
    if loader.dataset.type == 'InMemoryImages':
        pytest.skip('needs images of one size: tests/test_datasets/test_in_memory.py')
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    if cfg.default_scope == 'mmpretrain':
        loader.collate_fn = dict(type='default_collate')
    loader.dataset.data_root = f'{shapes}/{FOLDERS[cfg.default_scope]}/'
    loader.dataset.pop('classes', None)
    if cfg.default_scope != 'mmseg':  # The scenes' label maps fit ADE20K's classes.
        loader.dataset.metainfo = dict(classes=CLASSES)
    shrink(loader.dataset.pipeline)
    return next(iter(Runner.build_dataloader(loader, seed=0)))
