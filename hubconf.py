"""Backbones for `torch.hub`: `torch.hub.load(REPOSITORY, 'cloformer_xxs', pretrained=True)`."""

from typing import Any as _Any

from mmcloformer import CloFormer as _CloFormer
from mmcloformer.errors import ConfigError as _ConfigError

dependencies = ['torch', 'mmengine', 'mmcv', 'safetensors']

_WEIGHTS = {arch: f'mmcloformer://cloformer_{arch}_tiny-imagenet' for arch in ('xxs', 'xs')}


def cloformer_xxs(pretrained: bool = False, **kwargs: _Any) -> _CloFormer:
    """Build CloFormer-XXS, a pyramid backbone.

    Args:
        pretrained: Whether to load the weights of the package (mmcloformer/weights/README.md).
        **kwargs: Further arguments of `mmcloformer.CloFormer`, such as `out_indices`.
    """
    return _build('xxs', pretrained, kwargs)


def cloformer_xs(pretrained: bool = False, **kwargs: _Any) -> _CloFormer:
    """Build CloFormer-XS; arguments as for `cloformer_xxs`."""
    return _build('xs', pretrained, kwargs)


def cloformer_s(pretrained: bool = False, **kwargs: _Any) -> _CloFormer:
    """Build CloFormer-S, for which there are no weights; arguments as for `cloformer_xxs`."""
    return _build('s', pretrained, kwargs)


def _build(arch: str, pretrained: bool, kwargs: dict[str, _Any]) -> _CloFormer:
    if pretrained:
        if arch not in _WEIGHTS:
            raise _ConfigError(
                f'there are no weights for cloformer_{arch}, only for '
                f'{", ".join(f"cloformer_{name}" for name in _WEIGHTS)}; use pretrained=False'
            )
        start = dict(type='Pretrained', checkpoint=_WEIGHTS[arch])
        backbone = _CloFormer(arch, init_cfg=start, **kwargs)
    else:
        backbone = _CloFormer(arch, **kwargs)
    if backbone.init_cfg:
        backbone.init_weights()
    return backbone
