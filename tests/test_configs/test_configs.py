"""Every config inherits, builds, takes a training step on generated scenes, and predicts."""

import ast

import pytest
import torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from mmcloformer.models import ARCHS
from tests.helpers_configs import CONFIGS, SIDE, batch, build

PER_CONFIG = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


@PER_CONFIG
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
    assert cfg.custom_imports['imports'][0] == 'mmcloformer'
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


@PER_CONFIG
def test_it_steps_and_predicts(path, shapes):
    cfg = Config.fromfile(path)
    import_modules_from_strings(cfg.custom_imports['imports'])
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
    if 'roi_head' in cfg.model:
        cfg.model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=10)
        cfg.model.test_cfg.rpn.update(nms_pre=50, max_per_img=10)
    model = build(cfg)
    model.train()
    data = model.data_preprocessor(batch(cfg, 'train', shapes), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite()
    loss.backward()
    # Distributed training would refuse them.
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
        # The map has the size of the image on disk, whatever size the network saw.
        assert sample.pred_sem_seg.shape == sample.ori_shape == (128, 128)
        assert sample.pred_sem_seg.data.max() < cfg.model.decode_head.num_classes
    else:
        found = sample.pred_instances
        assert found.bboxes.shape == (len(found), 4)
        if 'roi_head' in cfg.model:
            assert found.masks.shape == (len(found), 128, 128)
