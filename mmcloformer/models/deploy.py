"""The form for inference: affine steps around a convolution become part of its weights.

Nothing is built anew and the forward pass stays the one of training: the modules of a backbone
are changed where they stand. Outputs are equal but for rounding.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import UserError
from .layers import AttnConv, Block, Stem
from .norm import LayerNorm2d


class DeployError(UserError):
    """A model cannot be turned into its form for inference as it stands."""


class DeployMixin(nn.Module):
    """Gives CloFormer `switch_to_deploy`.

    Attributes:
        deployed: Whether it is in its form for inference.
    """

    stem: Stem
    stages: nn.ModuleList
    deployed: bool

    def switch_to_deploy(self) -> None:
        """Turn into the form for inference, in place; a second call changes nothing.

        BatchNorms, the affine pairs of the blocks' norms and the attention's scale go into the
        weights of convolutions, and on a CPU those are laid out in channels_last. Outputs stay
        the same but for rounding, training checkpoints no longer load, and there is no way back.

        Raises:
            DeployError: If the backbone is in training mode.
        """
        if self.training:
            raise DeployError(
                'the deploy form holds running statistics as constants: call eval() on the '
                'model before switch_to_deploy()'
            )
        if not self.deployed:
            fold_backbone(self)
            self.deployed = True


def switch_to_deploy(model: nn.Module) -> int:
    """Turn every CloFormer in a model into its form for inference, in place.

    What stands around the backbones, BatchNorm in a neck or a head included, is left alone.

    Args:
        model: A detector, segmentor or classifier, or a backbone by itself, in evaluation mode
            and with its weights loaded.

    Returns:
        The number of backbones found.

    Raises:
        DeployError: If a backbone is in training mode, or there is none.
    """
    backbones = [module for module in model.modules() if isinstance(module, DeployMixin)]
    if not backbones:
        raise DeployError(f'{type(model).__name__} holds no CloFormer to switch to deploy')
    for backbone in backbones:
        backbone.switch_to_deploy()
    return len(backbones)


@torch.no_grad()
def fold_backbone(backbone: DeployMixin) -> None:
    """Fold all that can be folded exactly; the work of `CloFormer.switch_to_deploy`."""
    stem = backbone.stem
    for conv in (stem.conv1, stem.conv2, stem.conv3, stem.conv4):
        _fold_batch_norm(conv)
    for stage in backbone.stages:
        for block in cast(Sequence[Block], stage):
            branches = cast(Sequence[AttnConv], block.attn.local)
            readers = [branch.qkv for branch in branches]
            if block.attn.pooled is not None:
                # Averages of an affine map are the affine map of the averages.
                readers += [block.attn.pooled.q, block.attn.pooled.kv]
            block.norm1 = _fold_affine(block.norm1, readers)
            block.norm2 = _fold_affine(block.norm2, [block.ffn.fc1])
            for branch in branches:
                _scale(cast(nn.Conv2d, branch.gate[-1]), branch.scale)
                branch.scale = 1.0
            if isinstance(block.shortcut, nn.Sequential):
                _fold_batch_norm(block.shortcut)
    if stem.proj.weight.device.type == 'cpu':
        # As the maps are there; else each call copies the dense convolutions' weights.
        backbone.to(memory_format=torch.channels_last)


def _fold_batch_norm(layers: nn.Sequential) -> None:
    """Fold the BatchNorm that is second into the convolution that is first; its place stays
    taken, so that the others keep their keys. Any other norm stays."""
    conv, norm = cast(nn.Conv2d, layers[0]), layers[1]
    if isinstance(norm, _BatchNorm):
        layers[0] = fuse_conv_bn_eval(conv, norm)
        layers[1] = nn.Identity()


def _fold_affine(norm: LayerNorm2d, readers: Sequence[nn.Conv2d]) -> LayerNorm2d:
    """Move a norm's affine pair into the 1x1 convolutions that alone read it."""
    for conv in readers:
        # 1x1 and unpadded: the shift reaches every position alike.
        _bias(conv).add_(conv.weight.flatten(1) @ norm.bias)
        conv.weight.mul_(norm.weight[:, None, None])
    return LayerNorm2d(norm.num_channels, affine=False).train(norm.training)


def _scale(conv: nn.Conv2d, factor: float) -> None:
    conv.weight.mul_(factor)
    _bias(conv).mul_(factor)


def _bias(conv: nn.Conv2d) -> Tensor:
    return cast(Tensor, conv.bias)  # Every convolution here has one.
