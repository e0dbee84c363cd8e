"""Every config: inherits, builds, takes a training step on generated scenes and predicts."""

import ast

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmcloformer.apis.config import build_model
from mmcloformer.datasets.shapes import CLASSES
from mmcloformer.models import ARCHS
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
SIDE = 64
# For each size that a pipeline may name, the one to step at.
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


def name(path):
    return path.stem


def build(cfg):
    """The model as the Runner of a single process builds it, without loading weights."""
    return revert_sync_batchnorm(build_model(cfg))


def batch(cfg, split, shapes):
    """The first two samples of a split, through the config's own pipeline at a small size."""
    loader = cfg[f'{split}_dataloader']
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    if cfg.default_scope == 'mmpretrain':
        loader.collate_fn = dict(type='default_collate')
    if loader.dataset.type != 'WaveDataset':  # That one reads nothing.
        loader.dataset.data_root = f'{shapes}/{FOLDERS[cfg.default_scope]}/'
        loader.dataset.pop('classes', None)
        if cfg.default_scope != 'mmseg':  # ADE20K's labels fit as they are.
            loader.dataset.metainfo = dict(classes=CLASSES)
        for transform in loader.dataset.pipeline:
            transform.update(SMALL.get(transform.type, {}))
    return next(iter(Runner.build_dataloader(loader, seed=0)))


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_it_inherits_and_fits_a_screen(path):
    assert len(path.read_text().splitlines()) <= 60
    assigned = [
        target.id
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    ]
    assert '_base_' in assigned
    cfg = Config.fromfile(path)
    assert cfg.custom_imports['imports'] == ['mmcloformer']
    assert cfg.auto_scale_lr.base_batch_size > 0
    assert cfg.sync_bn == 'torch'
    check_size(path, cfg)


def check_size(path, cfg):
    size = next(arch for arch in ('xxs', 'xs', 's') if f'_{arch}_' in path.name)
    assert cfg.model.backbone.arch == size
    dims = [ARCHS[size].embed_dims[i] for i in cfg.model.backbone.out_indices]
    if 'neck' in cfg.model and 'in_channels' in cfg.model.neck:
        assert cfg.model.neck.in_channels == dims
    elif 'auxiliary_head' in cfg.model:
        assert cfg.model.decode_head.in_channels == dims
        assert cfg.model.auxiliary_head.in_channels == dims[cfg.model.auxiliary_head.in_index]
    else:
        assert [cfg.model.head.in_channels] == dims


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_it_steps_and_predicts(path, shapes):
    cfg = Config.fromfile(path)
    import_modules_from_strings(cfg.custom_imports['imports'])
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
    model = build(cfg)
    model.train()
    data = model.data_preprocessor(batch(cfg, 'train', shapes), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite()
    loss.backward()
    # What distributed training would refuse.
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    with torch.no_grad():
        predictions = model.eval().test_step(batch(cfg, 'val', shapes))
    assert len(predictions) == 2
    for sample in predictions:
        check_prediction(cfg, sample)


def check_prediction(cfg, sample):
    if cfg.default_scope == 'mmpretrain':
        assert sample.pred_score.shape == (cfg.model.head.num_classes,)
        assert sample.pred_score.sum().item() == pytest.approx(1, abs=1e-4)
    elif cfg.default_scope == 'mmseg':
        # On the pixels of the image as it is on disk, whatever size the network saw.
        assert sample.pred_sem_seg.shape == sample.ori_shape == (128, 128)
        assert sample.pred_sem_seg.data.max() < cfg.model.decode_head.num_classes
    else:
        found = sample.pred_instances
        assert found.bboxes.shape == (len(found), 4)
        if 'roi_head' in cfg.model:
            assert found.masks.shape == (len(found), 128, 128)
