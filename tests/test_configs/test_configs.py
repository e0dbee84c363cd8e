"""Every config: inherits, builds, takes a training step and predicts."""

import ast

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmcloformer.models import ARCHS
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
DETECTORS = [path for path in CONFIGS if 'retinanet' in path.name]


def name(path):
    return path.stem


def build(cfg):
    init_default_scope(cfg.default_scope)
    registry = __import__(f'{cfg.default_scope}.registry', fromlist=['MODELS']).MODELS
    return registry.build(cfg.model)


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
    size = next(arch for arch in ('xxs', 'xs', 's') if f'_{arch}_' in path.name)
    assert cfg.model.backbone.arch == size
    if isinstance(cfg.model.get('neck', {}).get('in_channels'), list):
        expected = [ARCHS[size].embed_dims[i] for i in cfg.model.backbone.out_indices]
        assert cfg.model.neck.in_channels == expected


@pytest.mark.parametrize('path', DETECTORS, ids=name)
def test_detectors_step_and_predict(path):
    from mmdet.structures import DetDataSample

    cfg = Config.fromfile(path)
    model = build(cfg)
    size = (96, 130)
    sample = DetDataSample(
        metainfo=dict(
            img_id=0, img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0)
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 10.0, 60.0, 70.0]]), labels=torch.tensor([1])
    )
    image = torch.randint(0, 255, (3, *size), dtype=torch.uint8)
    data = dict(inputs=[image, image], data_samples=[sample, sample.clone()])
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    # What distributed training would refuse.
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    with torch.no_grad():
        predictions = model.eval().test_step(data)
    assert len(predictions) == 2
    assert predictions[0].pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize('path', DETECTORS, ids=name)
def test_detectors_follow_the_recipe(path):
    cfg = Config.fromfile(path)
    assert cfg.model.neck.num_outs == 5
    assert cfg.model.neck.add_extra_convs == 'on_input'
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    if path.parent.name != 'demo':
        assert cfg.optim_wrapper.optimizer.lr == 1e-4
        assert cfg.optim_wrapper.optimizer.weight_decay == 1e-4
        assert cfg.train_cfg.max_epochs == 12
        assert cfg.param_scheduler[0].end == 500
        assert cfg.param_scheduler[1].milestones == [8, 11]
        assert cfg.train_dataloader.batch_size == 2
        assert cfg.auto_scale_lr.base_batch_size == 16
        assert cfg.train_dataloader.dataset.data_root == 'data/coco/'
