"""Converts the released code's checkpoints to mmpretrain's format."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, ConfigError, join_first
from ..models import ARCHS, Arch, CloFormer
from ..models.archs import NUM_STAGES

_BLOCK = r'layers\.(\d+)\.blocks\.(\d+)\.'
_NEW_BLOCK = r'backbone.stages.\1.\2.'

# Released name -> name in this package, in the order of the network. `norm` is the classifier's
# norm, which is the norm of the last output here.
_RENAMES = [
    (r'patch_embed\.conv([1-4])\.conv\.([01])\.', r'backbone.stem.conv\1.\2.'),
    (r'patch_embed\.conv5\.', r'backbone.stem.proj.'),
    (r'patch_embed\.layernorm\.', r'backbone.stem.norm.'),
    (_BLOCK + r'(norm[12])\.', _NEW_BLOCK + r'\3.'),
    (_BLOCK + r'attn\.qkvs\.(\d+)\.', _NEW_BLOCK + r'attn.local.\3.qkv.'),
    (_BLOCK + r'attn\.convs\.(\d+)\.', _NEW_BLOCK + r'attn.local.\3.dwconv.'),
    (
        _BLOCK + r'attn\.act_blocks\.(\d+)\.act_block\.([02])\.',
        _NEW_BLOCK + r'attn.local.\3.gate.\4.',
    ),
    (_BLOCK + r'attn\.global_(q|kv)\.', _NEW_BLOCK + r'attn.pooled.\3.'),
    (_BLOCK + r'attn\.proj\.', _NEW_BLOCK + r'attn.proj.'),
    (_BLOCK + r'mlp\.(fc1|dwconv|fc2)\.', _NEW_BLOCK + r'ffn.\3.'),
    (_BLOCK + r'downsample\.([012])\.', _NEW_BLOCK + r'shortcut.\3.'),
    (r'norm\.', r'backbone.norm3.'),
    (r'head\.', r'head.fc.'),
]


def rename_key(key: str) -> str | None:
    """Return the new name of a key of the released state dict, or None if the key is unknown."""
    for pattern, replacement in _RENAMES:
        match = re.match(pattern, key)
        if match:
            return match.expand(replacement) + key[match.end() :]
    return None


def convert_checkpoint(released: Mapping[str, Tensor]) -> dict[str, Any]:
    """Turn the released code's state dict into an mmpretrain classifier's checkpoint.

    Args:
        released: State dict of the released model.

    Returns:
        A checkpoint of plain types: `state_dict` with `backbone.` and `head.fc.` keys, and
        `meta` with the arch (a name where it is a published one) and the number of classes.

    Raises:
        CheckpointError: If keys are unknown or missing, or shapes do not match; names them.
    """
    state_dict = {}
    unknown = []
    for key, value in released.items():
        renamed = rename_key(key)
        if renamed is None:
            unknown.append(key)
        else:
            state_dict[renamed] = value
    if unknown:
        raise CheckpointError(
            f'{len(unknown)} keys do not belong to the released CloFormer: '
            f'{join_first(unknown, 50)}'
        )
    # Loading into the backbone finds other missing keys. These are read before that, or loading
    # allows them to be missing.
    needed = (
        *(f'backbone.norm3.{kind}' for kind in ('weight', 'bias')),
        *(f'head.fc.{kind}' for kind in ('weight', 'bias')),
        'backbone.stem.conv1.0.weight',
    )
    missing = [key for key in needed if key not in state_dict]
    if missing:
        raise CheckpointError(
            f'not a checkpoint of the released classifier, no weights for {", ".join(missing)}'
        )
    head = state_dict['head.fc.weight']

    arch = infer_arch(state_dict)
    stem = _conv_weight(state_dict, 'backbone.stem.conv1.0.weight')
    try:
        backbone = CloFormer(
            arch=arch._asdict(), in_channels=stem.shape[1], out_indices=(NUM_STAGES - 1,)
        )
    except ConfigError as error:
        raise CheckpointError(f'the shapes of the weights are of no CloFormer: {error}') from error
    prefix = 'backbone.'
    backbone.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    )
    if head.shape != (*state_dict['head.fc.bias'].shape[:1], arch.embed_dims[-1]):
        raise CheckpointError(
            f'head.weight has the shape {tuple(head.shape)}, expected (classes, '
            f'{arch.embed_dims[-1]}) with as many classes as head.bias'
        )
    meta = dict(arch=_name_or_fields(arch), num_classes=head.shape[0])
    return dict(state_dict=state_dict, meta=meta)


def infer_arch(state_dict: Mapping[str, Tensor]) -> Arch:
    """Infer the arch from the shapes of a converted state dict.

    Shapes do not determine the number of heads. If the widths are those of a published variant, its
    number is used; otherwise the head width is the largest one that divides all branches.

    Args:
        state_dict: Weights with the names of this package.

    Raises:
        CheckpointError: If whole stages or branches are missing, or a weight that is read has not
            the shape of a convolution.
    """
    dims, depths, widths, kernels = [], [], [], []
    for stage in range(NUM_STAGES):
        blocks = {
            int(match[1])
            for key in state_dict
            if (match := re.match(rf'backbone\.stages\.{stage}\.(\d+)\.', key))
        }
        attn = f'backbone.stages.{stage}.0.attn.'
        convs: list[Tensor] = []
        while (key := f'{attn}local.{len(convs)}.dwconv.weight') in state_dict:
            convs.append(_conv_weight(state_dict, key))
        query = f'{attn}pooled.q.weight'
        num_pooled = _conv_weight(state_dict, query).shape[0] if query in state_dict else 0
        dims.append(_conv_weight(state_dict, f'{attn}proj.weight').shape[0])
        depths.append(len(blocks))
        widths.append((*(c.shape[0] // 3 for c in convs), num_pooled))
        if not any(widths[-1]):
            raise CheckpointError(f'{attn}local and {attn}pooled have no weights')
        kernels.append(tuple(c.shape[-1] for c in convs))

    for arch in ARCHS.values():
        if (tuple(dims), tuple(depths)) == (arch.embed_dims, arch.depths) and all(
            _widths(arch, stage) == (widths[stage], kernels[stage]) for stage in range(NUM_STAGES)
        ):
            return arch
    heads = [math.gcd(*filter(None, stage)) for stage in widths]
    return Arch(
        embed_dims=tuple(dims),
        depths=tuple(depths),
        num_heads=tuple(sum(w) // head for w, head in zip(widths, heads)),
        group_splits=tuple(tuple(w // head for w in ws) for ws, head in zip(widths, heads)),
        kernel_sizes=tuple(kernels),
        drop_path_rate=0.0,
    )


def _conv_weight(state_dict: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state_dict:
        raise CheckpointError(f'weights are missing: {key}')
    weight = state_dict[key]
    if weight.ndim != 4 or not weight.numel():
        raise CheckpointError(
            f'{key} has the shape {tuple(weight.shape)}, expected the weight of a convolution'
        )
    return weight


def _widths(arch: Arch, stage: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the channels of each local branch that exists and of the global branch (0 if it does
    not exist), and the kernel sizes of the local branches."""
    head = arch.embed_dims[stage] // arch.num_heads[stage]
    *local, pooled = arch.group_splits[stage]
    present = [(n * head, k) for n, k in zip(local, arch.kernel_sizes[stage]) if n]
    return (*(w for w, _ in present), pooled * head), tuple(k for _, k in present)


def _name_or_fields(arch: Arch) -> str | dict[str, Any]:
    """Return the name of a published arch, or the fields of any other."""
    names = [name for name, known in ARCHS.items() if known == arch]
    return names[0] if names else arch._asdict()
