"""Distributed training finds a gradient for every parameter, whatever the config.

One process is enough: DistributedDataParallel keeps the same account of its gradients in a group
of one, and its next forward pass fails where the last backward pass left one out.
"""

import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmcloformer import CloFormer
from tests.conftest import ROOT
from tests.helpers_configs import CONFIGS, SIDE, batch, build

FAST = ('retinanet_cloformer_xxs_coco', 'semantic-fpn_cloformer_xxs_ade20k')
TINY = dict(
    embed_dims=(4, 8, 12, 16),
    depths=(1, 1, 1, 1),
    num_heads=(2, 2, 2, 2),
    group_splits=((1, 1),) * 4,
    kernel_sizes=((3,),) * 4,
    drop_path_rate=0.1,
)
SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(range(4), n)]


@pytest.fixture(scope='module', autouse=True)
def group(tmp_path_factory):
    store = tmp_path_factory.mktemp('group') / 'store'
    distributed.init_process_group('gloo', init_method=f'file://{store}', rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def train(cfg, shapes):
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
    model = MMDistributedDataParallel(build(cfg), broadcast_buffers=False)
    data = model.module.data_preprocessor(batch(cfg, 'train', shapes), training=True)
    for _ in range(2):
        loss, _ = model.module.parse_losses(model(**data, mode='loss'))
        loss.backward()


@pytest.mark.parametrize(
    'path',
    [pytest.param(p, marks=[] if p.stem in FAST else pytest.mark.nightly) for p in CONFIGS],
    ids=lambda path: path.stem,
)
def test_no_config_has_unused_parameters(path, shapes):
    train(Config.fromfile(path), shapes)


def test_an_unused_output_is_found(shapes):
    """What the RetinaNet config avoids by not asking for the level that its neck skips."""
    cfg = Config.fromfile(ROOT / 'configs' / 'retinanet_cloformer_xxs_coco.py')
    cfg.model.backbone.out_indices = (0, 1, 2, 3)
    cfg.model.neck.update(in_channels=[32, 64, 128, 256], start_level=1)
    with pytest.raises(RuntimeError, match='parameters that were not used in producing loss'):
        train(cfg, shapes)


class Detector(nn.Module):
    """A backbone with something to train on each of its outputs."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(nn.Conv2d(dims, 1, 1) for dims in backbone.out_channels)

    def forward(self, x):
        return sum(head(out).mean() for head, out in zip(self.heads, self.backbone(x)))


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('frozen_stages', range(-1, 5))
@pytest.mark.parametrize('out_indices', SUBSETS, ids=str)
def test_no_choice_of_outputs_has_unused_parameters(out_indices, frozen_stages, with_cp):
    backbone = CloFormer(
        TINY, out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp
    )
    model = DistributedDataParallel(Detector(backbone).train())
    for _ in range(2):
        model(torch.rand(2, 3, 32, 32)).backward()
