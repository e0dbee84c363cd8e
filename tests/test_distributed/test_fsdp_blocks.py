"""Two processes shard a backbone with each `Block` wrapped, and train as one process does."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from mmcloformer import CloFormer
from mmcloformer.models.layers import Block
from tests.archs import SEVERAL_BRANCHES
from tests.processes import run_in_group


def build():
    torch.manual_seed(0)
    return CloFormer(SEVERAL_BRANCHES, drop_path_rate=0.0, norm_eval=True).train()


def train(backbone):
    """Take two steps on the same images and return their losses."""
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        loss = sum(out.square().mean() for out in backbone(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def shard_with_fsdp1(backbone):
    cpu = torch.device('cpu')
    return FullyShardedDataParallel(
        backbone, auto_wrap_policy=ModuleWrapPolicy({Block}), device_id=cpu, use_orig_params=True
    )


def shard_with_fsdp2(backbone):
    mesh = dist.init_device_mesh('cpu', (2,))
    for module in list(backbone.modules()):
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    return fully_shard(backbone, mesh=mesh)


SHARD = dict(fsdp1=shard_with_fsdp1, fsdp2=shard_with_fsdp2)


def train_sharded(rank, folder, name):
    losses = train(SHARD[name](build()))
    if rank == 0:
        torch.save(losses, folder / 'losses.pth')


@pytest.mark.parametrize('name', SHARD)
def test_sharded_blocks_train_like_plain_ones(name, tmp_path):
    expected = train(build())
    assert expected[0] != expected[1]
    run_in_group(train_sharded, tmp_path / 'store', tmp_path, name)
    losses = torch.load(tmp_path / 'losses.pth', weights_only=True)
    assert losses == pytest.approx(expected, rel=1e-5)
