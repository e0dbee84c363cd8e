"""Initial weights for a wider variant, made from a trained classifier of a narrower one.

Channels and heads are repeated. A copy computes what the original does, and a layer that reads both
divides its weight between them, in unequal shares so that training can tell them apart. If all
channels are repeated equally often, the output stays the same. Otherwise it is close: the norms
over all channels then weigh some channels more than others.
Source: Net2Net, arXiv 1511.05641, section 2.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from ..models import Arch, resolve_arch
from ..models.archs import NUM_STAGES
from ..models.layers import AttnConv, CloAttention, PooledAttention
from .convert import build_classifier, describe_classifier

_NOISE = 0.5  # Standard deviation of the shares of copies, relative to equal shares.


def widen_checkpoint(
    state_dict: Mapping[str, Tensor], arch: str | Mapping[str, Any]
) -> dict[str, Any]:
    """Turn a trained classifier into initial weights of a wider variant.

    Args:
        state_dict: Weights of the classifier, with the names of this package.
        arch: The wider variant, by name or by the fields of `Arch`. Depths, kernel sizes and
            branches are those of the classifier.

    Returns:
        A checkpoint with `state_dict`, and `meta` with the arch and the number of classes.

    Raises:
        CheckpointError: If the weights are not those of a classifier, or `arch` is narrower.
        ConfigError: If `arch` is no variant of CloFormer.
    """
    meta = describe_classifier(state_dict)
    _check_wider(resolve_arch(meta['arch']), resolve_arch(arch))
    old, new = build_classifier(state_dict, meta['arch']), build_classifier(state_dict, arch)
    old.load_state_dict(state_dict)
    _Widening().copy_all(old, new)
    return dict(state_dict=new.state_dict(), meta=dict(meta, arch=arch))


def _check_wider(narrow: Arch, wide: Arch) -> None:
    for field in ('depths', 'kernel_sizes'):
        if getattr(narrow, field) != getattr(wide, field):
            raise CheckpointError(
                f'arch.{field} is {getattr(wide, field)}, in the weights {getattr(narrow, field)}: '
                'only channels and heads can become more'
            )
    for stage in range(NUM_STAGES):
        old, new = _widths(narrow, stage), _widths(wide, stage)
        for name in old:
            if new[name] < old[name] or bool(new[name]) != bool(old[name]):
                raise CheckpointError(
                    f'stage {stage} of arch has {new[name]} {name}, the weights have {old[name]}: '
                    'channels and heads can only become more, and each branch must remain'
                )


def _widths(arch: Arch, stage: int) -> dict[str, int]:
    head_dims = arch.embed_dims[stage] // arch.num_heads[stage]
    *local, pooled = arch.group_splits[stage]
    return {
        'channels': arch.embed_dims[stage],
        **{f'channels in local branch {i}': n * head_dims for i, n in enumerate(local)},
        'heads in the global branch': pooled,
        'channels per head of the global branch': head_dims if pooled else 0,
    }


class _Widening:
    """Copies a narrow network's layers into a wide one.

    The channels of a wide layer are given by indices: which channel of the narrow layer each of
    them is a copy of.
    """

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def copy_all(self, old: nn.Module, new: nn.Module) -> None:
        pairs = [*zip(old.modules(), new.modules())]
        for narrow, wide in pairs:
            if isinstance(getattr(narrow, 'weight', None), Tensor):
                self.copy(narrow, wide)
        # Once more, as the channels of an attention are those of several branches in a row.
        for narrow, wide in pairs:
            if isinstance(narrow, CloAttention) and isinstance(wide, CloAttention):
                self.copy_attention(narrow, wide)

    def copy_attention(self, old: CloAttention, new: CloAttention) -> None:
        channels, offset = [], 0
        for narrow, wide in cast(Iterable[tuple[AttnConv, AttnConv]], zip(old.local, new.local)):
            channels.append(offset + self.copy_attn_conv(narrow, wide))
            offset += narrow.qkv.out_channels // 3
        if old.pooled is not None and new.pooled is not None:
            channels.append(offset + self.copy_pooled(old.pooled, new.pooled))
        self.copy(old.proj, new.proj, inputs=torch.cat(channels))

    def copy_attn_conv(self, old: AttnConv, new: AttnConv) -> Tensor:
        """Copy a local branch and return its channels."""
        dims = old.qkv.out_channels // 3
        channels = _repeat(dims, new.qkv.out_channels // 3)
        qkv = torch.cat([channels, channels + dims, channels + 2 * dims])
        self.copy(old.qkv, new.qkv, qkv)
        self.copy(old.dwconv, new.dwconv, qkv)
        # The weights are divided by the square root of the channels per head.
        self.copy(old.gate[2], new.gate[2], factor=old.scale / new.scale)
        return channels

    def copy_pooled(self, old: PooledAttention, new: PooledAttention) -> Tensor:
        """Copy the global branch and return its channels."""
        dims = old.q.out_channels
        old_dims, new_dims = dims // old.num_heads, new.q.out_channels // new.num_heads
        in_head = _repeat(old_dims, new_dims)
        heads = _repeat(old.num_heads, new.num_heads)
        channels = (heads[:, None] * old_dims + in_head).flatten()
        # The product with the keys is a sum over the copies, divided by a larger square root.
        factor = (new_dims / old_dims) ** 0.5 / in_head.bincount()[in_head]
        self.copy(old.q, new.q, channels, factor=factor.repeat(new.num_heads))
        self.copy(old.kv, new.kv, torch.cat([channels, channels + dims]))
        return channels

    @torch.no_grad()
    def copy(
        self,
        old: nn.Module,
        new: nn.Module,
        outputs: Tensor | None = None,
        inputs: Tensor | None = None,
        factor: float | Tensor = 1.0,
    ) -> None:
        """Copy one layer: convolution, linear layer or norm.

        Args:
            old: The narrow layer.
            new: The wide layer.
            outputs: Its output channels.
            inputs: Its input channels.
            factor: What to multiply all outputs or each of them with.
        """
        weight, target = old.get_parameter('weight'), new.get_parameter('weight')
        if outputs is None:
            outputs = _repeat(len(weight), len(target))
        factor = torch.as_tensor(factor).expand(len(outputs))
        if weight.dim() > 1:
            if inputs is None:
                inputs = _repeat(weight.shape[1], target.shape[1])
            shares = factor[:, None] * self.draw_shares(inputs, len(outputs))
            shares = shares.view(*shares.shape, *[1] * (weight.dim() - 2))
            target.copy_(weight[outputs][:, inputs] * shares)
        else:
            target.copy_(weight[outputs])
        new.get_parameter('bias').copy_(old.get_parameter('bias')[outputs] * factor)
        for name, value in old.named_buffers():  # The statistics of BatchNorm.
            new.get_buffer(name).copy_(value[outputs] if value.dim() else value)

    def draw_shares(self, inputs: Tensor, rows: int) -> Tensor:
        """Draw each copy's share of a weight, `(rows, inputs)`; those of one channel sum to 1."""
        copies = F.one_hot(inputs).float()
        count = copies.sum(0)
        noise = _NOISE * torch.randn(rows, len(inputs), generator=self.generator)
        mean = noise @ copies / count
        return (1 + noise - mean[:, inputs]) / count[inputs]


def _repeat(old: int, new: int) -> Tensor:
    return torch.arange(new) % old
