"""The deploy form: affine steps around a convolution become part of its weights.

The modules of a backbone are changed in place, and its forward pass stays the same. Outputs are
equal up to rounding.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import UserError
from .layers import AttnConv, Block, ConvFFN, PooledAttention, Stem
from .norm import GroupNorm1


class DeployError(UserError):
    """A model cannot be switched to the deploy form, or is used for training in it."""


class DeployMixin(nn.Module):
    """Adds `switch_to_deploy` to the backbone.

    Attributes:
        deployed: Whether it has the deploy form.
    """

    stem: Stem
    stages: nn.ModuleList
    deployed: bool

    def switch_to_deploy(self) -> None:
        """Switch to the deploy form in place; a second call changes nothing.

        BatchNorms, the weights and biases of the blocks' norms and the attention's scale are
        folded into convolutions. On a CPU the weights are converted to channels_last. Outputs are
        equal up to rounding, training checkpoints no longer load, and there is no way back.

        Raises:
            DeployError: If the backbone is in training mode, or a part was replaced.
        """
        if self.training:
            raise DeployError(
                'the deploy form has the running statistics folded in as constants: call eval() '
                'on the model before switch_to_deploy()'
            )
        if not self.deployed:
            fold_backbone(self)
            self.deployed = True


def switch_to_deploy(model: nn.Module) -> int:
    """Switch every CloFormer in a model to the deploy form, in place.

    The rest of the model, including BatchNorm in a neck or a head, is not changed.

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
    """Fold everything that can be folded exactly.

    Raises:
        DeployError: If a convolution to fold into was replaced, wrapped or parametrized.
    """
    _check_convolutions(backbone)
    stem = backbone.stem
    for conv in (stem.conv1, stem.conv2, stem.conv3, stem.conv4):
        _fold_batch_norm(conv)
    for stage in backbone.stages:
        for block in cast(Sequence[Block], stage):
            branches = cast(Sequence[AttnConv], block.attn.local)
            consumers = [branch.qkv for branch in branches]
            if block.attn.pooled is not None:
                # Average pooling commutes with an affine map per channel.
                consumers += [block.attn.pooled.q, block.attn.pooled.kv]
            block.norm1 = _fold_affine(block.norm1, consumers)
            block.norm2 = _fold_affine(block.norm2, [block.ffn.fc1])
            for branch in branches:
                _scale(cast(nn.Conv2d, branch.gate[-1]), branch.scale)
                branch.scale = 1.0
            if isinstance(block.shortcut, nn.Sequential):
                _fold_batch_norm(block.shortcut)
    if stem.proj.weight.device.type == 'cpu':
        # The maps are channels_last there. Otherwise each call would convert the weights.
        backbone.to(memory_format=torch.channels_last)


def _check_convolutions(backbone: DeployMixin) -> None:
    for name, module in backbone.named_modules():
        if isinstance(module, AttnConv):
            parts: dict[str, nn.Module] = {'qkv': module.qkv, 'gate': module.gate[-1]}
        elif isinstance(module, PooledAttention):
            parts = {'q': module.q, 'kv': module.kv}
        elif isinstance(module, ConvFFN):
            parts = {'fc1': module.fc1}
        else:
            continue
        for part, conv in parts.items():
            if type(conv) is not nn.Conv2d or not isinstance(conv.weight, nn.Parameter):
                raise DeployError(
                    f'{name}.{part} is a {type(conv).__name__} and not a plain Conv2d, so nothing '
                    f'can be folded into it: merge or remove adapters, parametrizations and '
                    f'wrappers before switch_to_deploy()'
                )


def _fold_batch_norm(layers: nn.Sequential) -> None:
    """Fold the BatchNorm at index 1 into the convolution at index 0; any other norm is kept.

    It is replaced by Identity so that later keys do not shift.
    """
    conv, norm = cast(nn.Conv2d, layers[0]), layers[1]
    if isinstance(norm, _BatchNorm):
        layers[0] = fuse_conv_bn_eval(conv, norm)
        layers[1] = nn.Identity()


def _fold_affine(norm: GroupNorm1, consumers: Sequence[nn.Conv2d]) -> GroupNorm1:
    """Move a norm's weight and bias into the 1x1 convolutions that are its only consumers."""
    for conv in consumers:
        # Without padding the bias has the same effect at every position.
        _bias(conv).add_(conv.weight.flatten(1) @ norm.bias)
        conv.weight.mul_(norm.weight[:, None, None])
    return GroupNorm1(norm.num_channels, affine=False).train(norm.training)


def _scale(conv: nn.Conv2d, factor: float) -> None:
    conv.weight.mul_(factor)
    _bias(conv).mul_(factor)


def _bias(conv: nn.Conv2d) -> Tensor:
    return cast(Tensor, conv.bias)  # All convolutions of the network have one.
