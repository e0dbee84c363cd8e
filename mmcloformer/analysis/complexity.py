"""Counts parameters and multiply-adds of a config's model with torch's FlopCounterMode."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..apis.config import build_model, image_channels
from ..config import ConfigView
from ..errors import ConfigError

# Height and width in pixels for which costs are published, by host.
DEFAULT_SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 512), 'mmpretrain': (224, 224)}

# Published GMACs of the whole model at these shapes, by config. Source: tables of the paper's
# v5, as transcribed in igm503/heedless-backbones (family_data/CloFormer.yml).
PUBLISHED_GMACS = {
    'cloformer_xxs_imagenet': 0.6,
    'cloformer_xs_imagenet': 1.1,
    'cloformer_s_imagenet': 2.0,
    'semantic-fpn_cloformer_xxs_ade20k': 25.2,
    'semantic-fpn_cloformer_xs_ade20k': 28.2,
    'semantic-fpn_cloformer_s_ade20k': 34.6,
}

# torch's counter only knows the attention kernels for GPUs.
_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)  # type: ignore[no-untyped-call]
    )
}


@dataclass(frozen=True)
class Part:
    """One part of a model.

    Attributes:
        params: Number of parameters.
        macs: Multiply-adds for one image.
    """

    params: int
    macs: int

    def __sub__(self, other: 'Part') -> 'Part':
        return Part(self.params - other.params, self.macs - other.macs)


@dataclass(frozen=True)
class Complexity:
    """What a model costs for one image.

    Attributes:
        shape: Height and width of the image in pixels.
        parts: `backbone`, `neck`, `head` (all that is neither) and `whole`.
        operators: Multiply-adds of the whole by kind of operator.
        regions: How many regions each RoI extractor of a two-stage detector pools.
    """

    shape: tuple[int, int]
    parts: Mapping[str, Part]
    operators: Mapping[str, int]
    regions: Mapping[str, int]


def measure(cfg: Config, shape: tuple[int, int] | None = None) -> Complexity:
    """Build a config's model and count while it runs once, on the CPU, on one image.

    As in the hosts' own `get_flops.py`, a detector with random weights runs up to the raw outputs
    of its heads. Between the stages of a two-stage detector, NMS is turned off, because the number
    of boxes that it keeps depends on the weights: as many proposals are pooled as `test_cfg` allows
    (1000 by default), and the host's RoI head may give the mask head the first 100 of them. A
    segmentor takes the whole image.

    Convolutions, matrix products and both products of attention (queries with keys, scores with
    values) count. Biases, norms, activations, pooling, resizing, RoIAlign and deformable sampling
    do not, as usual. Parameters include heads that are used in training only.

    Args:
        cfg: Config of any of the three hosts.
        shape: Height and width in pixels; by default those of `DEFAULT_SHAPES`.

    Returns:
        The counts.

    Raises:
        ConfigError: If the config has no model of one of the hosts, or a side is not positive.
    """
    if shape and min(shape) < 1:
        raise ConfigError(f'the shape must be positive, got {shape[0]} {shape[1]}')
    model = _build(cfg)
    scope = ConfigView(cfg).host or ''
    shape = shape or DEFAULT_SHAPES[scope]
    regions = _watch_regions(model)
    image = torch.zeros(image_channels(cfg), *shape, dtype=torch.uint8)
    meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0))
    data = dict(inputs=[image], data_samples=[BaseDataElement(metainfo=meta)])
    batch = model.data_preprocessor(data, training=False)
    # Not under no_grad, where the backbone computes large maps in strips that overlap.
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        # mmseg's raw forward cannot run Mask2Former; prediction adds only resizing (not counted).
        model(**batch, mode='predict' if scope == 'mmseg' else 'tensor')
    return Complexity(shape, _parts(model, counter), _operators(counter), regions)


def _build(cfg: Config) -> BaseModel:
    cfg = copy.deepcopy(cfg)
    settings = cfg.get('model') or ConfigDict()
    test_cfg = settings.get('test_cfg') or {}
    if ConfigView(cfg).host == 'mmseg':
        settings['test_cfg'] = dict(test_cfg, mode='whole')
    elif rpn := test_cfg.get('rpn'):
        rpn.nms = dict(type='nms', iou_threshold=1.0)
    return revert_sync_batchnorm(build_model(cfg)).eval().requires_grad_(False)


def _watch_regions(model: BaseModel) -> dict[str, int]:
    """Record how many regions each RoI extractor pools, by its name."""
    regions: dict[str, int] = {}

    def note(name: str, _: nn.Module, __: Any, pooled: Tensor) -> None:
        regions[name] = len(pooled)

    for name, module in model.named_modules():
        if hasattr(module, 'roi_layers'):
            module.register_forward_hook(partial(note, name))
    return regions


def _parts(model: BaseModel, counter: FlopCounterMode) -> dict[str, Part]:
    counts = counter.get_flop_counts()
    parts = {}
    rest = whole = Part(_params(model), counter.get_total_flops() // 2)
    # Heads are a remainder: the hosts call their methods, which the counter does not see.
    for name in ('backbone', 'neck'):
        module = getattr(model, name, None)
        if module is not None:
            flops = sum(counts.get(f'{type(model).__name__}.{name}', {}).values())
            parts[name] = Part(_params(module), flops // 2)
            rest = rest - parts[name]
    return parts | dict(head=rest, whole=whole)


def _operators(counter: FlopCounterMode) -> dict[str, int]:
    kinds = {'convolution': 0, 'attention': 0, 'matrix product': 0}
    for op, flops in counter.get_flop_counts()['Global'].items():
        kind = next((kind for kind in kinds if kind in str(op)), 'matrix product')
        kinds[kind] += flops // 2
    return kinds


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
