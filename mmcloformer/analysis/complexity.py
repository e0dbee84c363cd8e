"""Parameters and multiply-adds of a config's model, by torch's own counter."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..errors import UserError

# Height and width that results of each host's tasks are published for, in pixels.
DEFAULT_SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 512), 'mmpretrain': (224, 224)}

# torch counts this op on GPUs only; left out, the pooled attention would count nothing on a CPU.
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


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
        parts: `backbone`, `neck` (where there is one), `head` (all else) and `whole`.
        operators: Multiply-adds of the whole by the kind of operator.
        regions: How many regions each RoI extractor of a two-stage detector pooled.
    """

    shape: tuple[int, int]
    parts: Mapping[str, Part]
    operators: Mapping[str, int]
    regions: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


def measure(cfg: Config, shape: tuple[int, int] | None = None) -> Complexity:
    """Build a config's model and count while it runs once, on the CPU, on one image.

    As in the hosts' own `get_flops.py`, a detector runs up to its heads' raw outputs, with random
    weights. A two-stage one pools as many proposals as its `test_cfg` lets through (1000 by
    default): NMS between them is turned off, so that the number does not hang on the weights. Its
    mask head sees the first 100 of them, which is the host's convention. A segmentor runs on the
    whole image.

    Counted are convolutions, matrix products and both products of attention (queries with keys,
    and the scores with values). Biases, norms, activations, pooling, resizing, RoIAlign and
    deformable sampling are not, as is the custom. Parameters include heads that only train.

    Args:
        cfg: Config of any of the three hosts.
        shape: Height and width in pixels; by default those of `DEFAULT_SHAPES`.

    Returns:
        The counts.

    Raises:
        UserError: If the config has no model of one of the hosts.
    """
    scope = cfg.get('default_scope')
    if 'model' not in cfg or scope not in DEFAULT_SHAPES:
        raise UserError(
            f'nothing to count: the config needs a model and a default_scope out of '
            f'{", ".join(DEFAULT_SHAPES)}'
        )
    height, width = shape or DEFAULT_SHAPES[scope]
    model = _build(cfg, scope)
    regions = _watch_regions(model)
    data = dict(
        inputs=[torch.zeros(3, height, width, dtype=torch.uint8)],
        data_samples=[
            BaseDataElement(
                metainfo=dict(
                    img_shape=(height, width),
                    ori_shape=(height, width),
                    pad_shape=(height, width),
                    scale_factor=(1.0, 1.0),
                )
            )
        ],
    )
    attention = {_ATTENTION: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
    counter = FlopCounterMode(display=False, custom_mapping=attention)
    # The fused encoder layer of torch is one op that the counter does not know.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), counter:
            # mmseg's raw forward lacks what Mask2Former asks for; prediction adds only resizing.
            batch = model.data_preprocessor(data, training=False)
            model(**batch, mode='predict' if scope == 'mmseg' else 'tensor')
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return Complexity((height, width), _parts(model, counter), _operators(counter), regions)


def _build(cfg: Config, scope: str) -> BaseModel:
    settings = cfg.model.copy()
    test_cfg = settings.get('test_cfg') or {}
    if scope == 'mmseg':
        test_cfg.mode = 'whole'
    if 'rpn' in test_cfg:
        test_cfg.rpn.nms.iou_threshold = 1.0
    init_default_scope(scope)
    model = import_module(f'{scope}.registry').MODELS.build(settings)
    return revert_sync_batchnorm(model).eval()


def _watch_regions(model: BaseModel) -> dict[str, int]:
    """Have every RoI extractor note the number of regions it pools, by its name."""
    regions: dict[str, int] = {}
    for name, module in model.named_modules():
        if hasattr(module, 'roi_layers'):

            def note(_: nn.Module, __: Any, pooled: Tensor, name: str = name) -> None:
                regions[name] = len(pooled)

            module.register_forward_hook(note)
    return regions


def _parts(model: BaseModel, counter: FlopCounterMode) -> dict[str, Part]:
    counts = counter.get_flop_counts()
    parts = {}
    rest = whole = Part(_params(model), counter.get_total_flops() // 2)
    # Only these two are sure to be entered by a call that the counter sees.
    for name in ('backbone', 'neck'):
        module = getattr(model, name, None)
        if module is not None:
            flops = sum(counts.get(f'{type(model).__name__}.{name}', {}).values())
            parts[name] = Part(_params(module), flops // 2)
            rest = rest - parts[name]
    return parts | dict(head=rest, whole=whole)


def _operators(counter: FlopCounterMode) -> dict[str, int]:
    macs = dict.fromkeys(('convolutions', 'attention', 'matrix products'), 0)
    for op, flops in counter.get_flop_counts()['Global'].items():
        name = str(op)
        kind = (
            'convolutions'
            if 'convolution' in name
            else 'attention'
            if 'attention' in name
            else 'matrix products'
        )
        macs[kind] += flops // 2
    return macs


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
