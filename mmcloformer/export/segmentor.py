"""Semantic segmentation."""

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from .graph import ExportError, Graph


class SegmentorGraph(Graph):
    """Class of every pixel, `(N, H, W)`, of a mmseg segmentor that takes whole images.

    Not the logits: those of 150 classes are 75 times as large.

    Raises:
        ExportError: If images are taken in windows, or a threshold decides between two classes.
    """

    task = 'semantic segmentation'
    outputs = ('class_map',)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if self.model.test_cfg.mode != 'whole':
            raise ExportError(
                f'model.test_cfg.mode is {self.model.test_cfg.mode!r}, and only whole images can '
                f"be exported: set it to 'whole'"
            )
        if self.model.out_channels == 1:
            raise ExportError('a decode head with a single output channel cannot be exported')
        _replace_resampling(model)

    def forward(self, images: Tensor) -> Tensor:
        metas = [dict(img_shape=images.shape[2:])]
        logits: Tensor = self.model.encode_decode(self.cast(images), metas)
        return logits.argmax(dim=1)


class AdaptiveAveragePool(nn.Module):
    """`nn.AdaptiveAvgPool2d` of any map; ONNX has it for sizes known in advance only.

    Args:
        size: Rows and columns of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_averages(n, length, x) for n, length in zip(self.size, x.shape[2:]))
        return rows @ x @ columns.T


def _averages(windows: int, length: int, like: Tensor) -> Tensor:
    """Weights `(windows, length)` of the adaptive averages along one axis."""
    index = torch.arange(windows, device=like.device)[:, None]
    start = index * length // windows
    stop = ((index + 1) * length + windows - 1) // windows
    position = torch.arange(length, device=like.device)
    inside = (position >= start) & (position < stop)
    return inside.to(like.dtype) / (stop - start).to(like.dtype)


def _replace_resampling(model: nn.Module) -> None:
    """Replace adaptive pooling, and mmseg's upsampling: it takes `int()` of a size, which would
    stay in the graph as it was for the example."""
    from mmseg.models.utils import Upsample

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(parent, name, AdaptiveAveragePool(_pair(child.output_size)))
            elif isinstance(child, Upsample) and child.size is None:
                scale, mode, align = child.scale_factor, child.mode, child.align_corners
                setattr(parent, name, nn.Upsample(None, scale, mode, align))
