"""Converts the released code's checkpoints to mmpretrain's format."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError, join_first
from ..models import ARCHS, CloFormer
from ..models.archs import NUM_STAGES
from ..models.state_dict import describe_differences

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
    return dict(state_dict=state_dict, meta=describe_classifier(state_dict))


def build_classifier(
    state_dict: Mapping[str, Tensor], arch: str | Mapping[str, Any]
) -> nn.ModuleDict:
    """Build the backbone and the linear head that mmpretrain's classifier has.

    Args:
        state_dict: Weights that give the channels of the image and the number of classes.
        arch: The variant.
    """
    channels = _conv_weight(state_dict, 'backbone.stem.conv1.0.weight').shape[1]
    classes = state_dict.get('head.fc.bias', torch.zeros(1)).shape[:1].numel()
    backbone = CloFormer(arch, in_channels=channels, out_indices=(NUM_STAGES - 1,))
    fc = nn.Linear(backbone.out_channels[-1], classes)
    return nn.ModuleDict(dict(backbone=backbone, head=nn.ModuleDict(dict(fc=fc))))


def describe_classifier(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Check that weights are all those of a classifier, and return its `arch` and `num_classes`.

    Args:
        state_dict: Weights with the names of this package.

    Raises:
        CheckpointError: If keys are unknown or missing, or shapes do not match; names them.
    """
    arch = infer_arch(state_dict)
    try:
        with torch.device('meta'):
            classifier = build_classifier(state_dict, arch)
    except ConfigError as error:
        raise CheckpointError(f'the shapes of the weights are of no CloFormer: {error}') from error
    if problems := describe_differences(classifier.state_dict(), state_dict):
        raise CheckpointError(f'not the weights of a classifier: {"; ".join(problems)}')
    return dict(arch=arch, num_classes=len(state_dict['head.fc.weight']))


def infer_arch(state_dict: Mapping[str, Tensor]) -> str | dict[str, Any]:
    """Infer the arch from the shapes of a converted state dict.

    Shapes do not determine the number of heads. If they are those of a published variant, its
    number is used; otherwise the head width is the largest one that divides all branches.

    Args:
        state_dict: Weights with the names of this package.

    Returns:
        The name of a published arch, or the fields of any other.

    Raises:
        CheckpointError: If whole stages or branches are missing, or a weight that is read has not
            the shape of a convolution.
    """
    dims, depths, widths, kernels = [], [], [], []
    for stage in range(NUM_STAGES):
        pattern = re.compile(rf'backbone\.stages\.{stage}\.(\d+)\.')
        depths.append(len({match[1] for key in state_dict if (match := pattern.match(key))}))
        attn = f'backbone.stages.{stage}.0.attn.'
        dims.append(_conv_weight(state_dict, f'{attn}proj.weight').shape[0])
        convs: list[Tensor] = []
        while (key := f'{attn}local.{len(convs)}.dwconv.weight') in state_dict:
            convs.append(_conv_weight(state_dict, key))
        query = f'{attn}pooled.q.weight'
        num_pooled = _conv_weight(state_dict, query).shape[0] if query in state_dict else 0
        widths.append((*(conv.shape[0] // 3 for conv in convs), num_pooled))
        if not any(widths[-1]):
            raise CheckpointError(f'{attn}local and {attn}pooled have no weights')
        kernels.append(tuple(conv.shape[-1] for conv in convs))

    stages = _take(state_dict, 'backbone.stages.')
    for name in ARCHS:
        with torch.device('meta'):
            own = _take(CloFormer(name).state_dict(), 'stages.')
        if not describe_differences(own, stages):
            return name
    heads = [math.gcd(*filter(None, stage)) for stage in widths]
    splits = [tuple(w // head for w in stage) for stage, head in zip(widths, heads)]
    return dict(
        embed_dims=tuple(dims),
        depths=tuple(depths),
        num_heads=tuple(map(sum, splits)),
        group_splits=tuple(splits),
        kernel_sizes=tuple(kernels),
        drop_path_rate=0.0,
    )


def _conv_weight(state_dict: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state_dict:
        raise CheckpointError(f'not the weights of a classifier: {key} is missing')
    weight = state_dict[key]
    if weight.ndim != 4 or not weight.numel():
        raise CheckpointError(
            f'{key} has the shape {tuple(weight.shape)}, expected the weight of a convolution'
        )
    return weight


def _take(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    keys = (key for key in state_dict if key.startswith(prefix))
    return {key.removeprefix(prefix): state_dict[key] for key in keys}
