"""The deploy form: affine steps around a convolution become part of its weights.

Outputs are equal up to rounding. A copy of a backbone in this form can also run in float16 or
bfloat16, while neck, head and post-processing keep single precision.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import UserError
from .layers import AttnConv, Block, CloAttention, ConvFFN, PooledAttention, Stem
from .norm import GroupNorm1

_CPU_INFO = Path('/proc/cpuinfo')
# AVX512-BF16 and AMX of x86, BF16 of Arm.
_CPU_FLAGS = r'\b(avx512_bf16|amx_bf16|bf16)\b'
_PLAIN = (nn.Conv2d, GroupNorm1)  # A subclass of these may compute something else.


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


class HalfPrecision(nn.Module):
    """Copy of a CloFormer in the deploy form and in half precision, for inference.

    It takes and returns tensors in single precision. Folding happens in single precision, before
    the weights are rounded. In bfloat16 the outputs differ from those of the backbone by about one
    percent.

    Args:
        backbone: A `CloFormer` with its weights loaded; it is not changed.
        dtype: `'bfloat16'` or `'float16'`.
    """

    def __init__(self, backbone: DeployMixin, dtype: str) -> None:
        super().__init__()
        deployed = copy.deepcopy(backbone).eval()
        deployed.switch_to_deploy()
        self.dtype = getattr(torch, dtype)
        # The layout of the fastest kernels in half precision, on any device.
        self.backbone = deployed.to(self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of a batch of images `(N, C, H, W)`, in the layout of x."""
        layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        outs = self.backbone(x.to(self.dtype))
        return tuple(out.to(torch.float32, memory_format=layout) for out in outs)


def replace_backbones(model: nn.Module, dtype: str) -> dict[str, DeployMixin]:
    """Let a `HalfPrecision` take the place of every CloFormer in a model.

    Args:
        model: A detector, segmentor or classifier with its weights loaded.
        dtype: `'bfloat16'` or `'float16'`.

    Returns:
        The backbones that were replaced, by their names in the model.

    Raises:
        DeployError: If there is none, or one cannot be switched to the deploy form.
    """
    found = {name: part for name, part in model.named_modules() if isinstance(part, DeployMixin)}
    if not found:
        raise DeployError(f'{type(model).__name__} holds no CloFormer to run in {dtype}')
    for name, backbone in found.items():
        model.set_submodule(name, HalfPrecision(backbone, dtype))
    return found


def require_dtype(dtype: str) -> None:
    """Check that the device computes in a dtype, rather than emulating it slowly.

    Raises:
        UserError: If the GPU, or the CPU where no GPU is used, has no units for it. On a system
            that does not list the features of its CPU, bfloat16 is not checked.
    """
    device = 'GPU' if torch.cuda.is_available() else 'CPU'
    if dtype == 'bfloat16' and device == 'GPU':
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    elif dtype == 'bfloat16':
        supported = not _CPU_INFO.exists() or cpu_has_bfloat16()
    else:
        supported = dtype == 'float32' or device == 'GPU'
    if not supported:
        raise UserError(
            f'this {device} has no units for {dtype} and would only emulate it, more slowly than '
            f'float32: use --dtype float32'
        )


def cpu_has_bfloat16() -> bool:
    """Return whether Linux lists bfloat16 instructions among the features of the CPU."""
    return _CPU_INFO.exists() and re.search(_CPU_FLAGS, _CPU_INFO.read_text()) is not None


class FoldedAttnConv(nn.Module):
    """`AttnConv` with the scale folded into the second convolution of the gate."""

    def __init__(self, branch: AttnConv) -> None:
        super().__init__()
        self.qkv, self.dwconv, self.gate = branch.qkv, branch.dwconv, branch.gate
        for parameter in self.gate[-1].parameters():
            parameter.mul_(branch.scale)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.dwconv(self.qkv(x)).chunk(3, dim=1)
        return torch.tanh(self.gate(q * k)) * v


@torch.no_grad()
def fold_backbone(backbone: DeployMixin) -> None:
    """Fold everything that can be folded exactly.

    Raises:
        DeployError: If a part of a block was replaced, wrapped or parametrized.
    """
    _check_parts(backbone)
    stem = backbone.stem
    for conv in (stem.conv1, stem.conv2, stem.conv3, stem.conv4):
        _fold_batch_norm(conv)
    for stage in backbone.stages:
        for block in cast(Sequence[Block], stage):
            branches = cast(Sequence[AttnConv], list(block.attn.local))
            consumers = [branch.qkv for branch in branches]
            if block.attn.pooled is not None:
                # Average pooling commutes with an affine map per channel.
                consumers += [block.attn.pooled.q, block.attn.pooled.kv]
            block.norm1.fold_affine(consumers)
            block.norm2.fold_affine([block.ffn.fc1])
            block.attn.local = nn.ModuleList(map(FoldedAttnConv, branches)).eval()
            if isinstance(block.shortcut, nn.Sequential):
                _fold_batch_norm(block.shortcut)
    if stem.proj.weight.device.type == 'cpu':
        # The maps are channels_last there. Otherwise each call would convert the weights.
        backbone.to(memory_format=torch.channels_last)


def _check_parts(backbone: DeployMixin) -> None:
    for name, kind in _parts(backbone):
        part = backbone.get_submodule(name)
        if not (_is_plain(part, kind) if kind in _PLAIN else isinstance(part, kind)):
            raise DeployError(
                f'{name} is a {type(part).__name__} and not a plain {kind.__name__}, so nothing '
                'can be folded into it: merge or remove adapters, parametrizations, pruning masks '
                'and wrappers before switch_to_deploy()'
            )


def _parts(backbone: DeployMixin) -> Iterator[tuple[str, type[nn.Module]]]:
    """Yield the name and class of each part that folding reads, an outer one before its own."""
    yield 'stem', Stem
    yield from ((f'stem.conv{index}', nn.Sequential) for index in range(1, 5))
    for stage, blocks in enumerate(backbone.stages):
        for index, block in enumerate(cast(Sequence[Block], blocks)):
            name = f'stages.{stage}.{index}'
            yield name, Block
            yield f'{name}.norm1', GroupNorm1
            yield f'{name}.norm2', GroupNorm1
            yield f'{name}.ffn', ConvFFN
            yield f'{name}.ffn.fc1', nn.Conv2d
            yield f'{name}.attn', CloAttention
            for branch in range(len(block.attn.local)):
                yield f'{name}.attn.local.{branch}', AttnConv
                yield f'{name}.attn.local.{branch}.qkv', nn.Conv2d
                yield f'{name}.attn.local.{branch}.gate', nn.Sequential
                yield f'{name}.attn.local.{branch}.gate.2', nn.Conv2d
            if block.attn.pooled is not None:
                yield f'{name}.attn.pooled', PooledAttention
                yield f'{name}.attn.pooled.q', nn.Conv2d
                yield f'{name}.attn.pooled.kv', nn.Conv2d


def _is_plain(part: nn.Module, kind: type[nn.Module] = nn.Conv2d) -> bool:
    """Return whether a layer is not replaced, wrapped or parametrized."""
    return type(part) is kind and isinstance(part.weight, nn.Parameter)


def _fold_batch_norm(layers: nn.Sequential) -> None:
    """Fold the BatchNorm at index 1 into a plain convolution at index 0; other pairs are kept.

    It is replaced by Identity so that later keys do not shift.
    """
    conv, norm = cast(nn.Conv2d, layers[0]), layers[1]
    # Without running statistics, or in training mode, a BatchNorm uses those of the batch.
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.training:
        return
    if _is_plain(conv):
        layers[0] = fuse_conv_bn_eval(conv, norm)
        layers[1] = nn.Identity()
