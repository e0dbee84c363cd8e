"""Two processes on half a batch each have the gradients of one on the whole."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from torch import nn

from tests.conftest import ROOT
from tests.helpers_configs import SIDE, batch, build
from tests.processes import run_in_group

NAMES = (
    'retinanet_cloformer_xxs_coco',
    'semantic-fpn_cloformer_xxs_ade20k',
    'cloformer_xxs_imagenet',
)


def make(name):
    """A model that draws nothing at random and whose BatchNorms see each image alone."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    cfg.model.train_cfg = None if cfg.default_scope == 'mmpretrain' else cfg.model.train_cfg
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
    torch.manual_seed(0)
    model = build(cfg).double().train()
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            module.eval()
    return cfg, model


def whole(cfg, model, shapes):
    """Two images. A detector divides its loss by the boxes a process has: both have the first's."""
    data = model.data_preprocessor(batch(cfg, 'train', shapes), training=True)
    data['inputs'] = data['inputs'].double()
    if cfg.default_scope == 'mmdet':
        data['data_samples'] = [copy.deepcopy(data['data_samples'][0]) for _ in range(2)]
    return data


def gradients(model, data):
    host = model.module if isinstance(model, MMDistributedDataParallel) else model
    loss, _ = host.parse_losses(model(**data, mode='loss'))
    loss.backward()
    return {name: p.grad for name, p in host.named_parameters() if p.requires_grad}


def train_on_half(rank, folder):
    for name in NAMES:
        _, model = make(name)
        data = torch.load(folder / f'{name}.pth', weights_only=False)
        half = {key: value[rank : rank + 1] for key, value in data.items()}
        ddp = MMDistributedDataParallel(model, broadcast_buffers=False)
        torch.save(gradients(ddp, half), folder / f'{name}_{rank}.pth')


@pytest.fixture(scope='module')
def folder(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp('gradients')
    for name in NAMES:
        torch.save(whole(*make(name), shapes), folder / f'{name}.pth')
    run_in_group(train_on_half, folder / 'store', folder)
    return folder


@pytest.mark.parametrize('name', NAMES)
def test_two_halves_have_the_gradients_of_the_whole(name, folder):
    _, model = make(name)
    one = gradients(model, torch.load(folder / f'{name}.pth', weights_only=False))
    assert len(one) > 300
    for rank in range(2):
        two = torch.load(folder / f'{name}_{rank}.pth')
        assert two.keys() == one.keys()
        for key, gradient in one.items():
            assert gradient.abs().max() > 0, key
            torch.testing.assert_close(
                two[key], gradient, rtol=0, atol=1e-7 * gradient.abs().max().item(), msg=key
            )
