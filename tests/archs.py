"""Backbones that the tests build."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcloformer import CloFormer

# Unlike the published archs: two local branches per stage, stages without one of them, and a stage
# without the global branch.
SEVERAL_BRANCHES = dict(
    embed_dims=[16, 32, 48, 64],
    depths=[1, 2, 1, 1],
    num_heads=[4, 4, 6, 8],
    group_splits=[[1, 1, 2], [2, 0, 2], [0, 3, 3], [4, 4, 0]],
    kernel_sizes=[[5, 3], [7, 3], [7, 5], [9, 3]],
    drop_path_rate=0.1,
)


def randomized(arch=SEVERAL_BRANCHES, **kwargs):
    """A backbone in evaluation mode whose norms have random weights and running statistics."""
    torch.manual_seed(0)
    backbone = CloFormer(arch, **kwargs)
    for module in backbone.modules():
        if isinstance(module, (_BatchNorm, nn.GroupNorm)):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, 0.0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone.eval()
