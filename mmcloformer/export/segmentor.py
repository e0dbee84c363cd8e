"""The graph of semantic segmentation, and layers that ONNX cannot express at free sizes."""

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from .graphs import ExportError, Graph


class SegmentorGraph(Graph):
    """Returns the class of every pixel, `(N, H, W)`, of a mmseg segmentor on whole images.

    It does not return logits: with 150 classes they are 75 times as large.

    Raises:
        ExportError: If the segmentor uses sliding windows or pads its images, or has a single
            output channel, which mmseg compares with a threshold.
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
            raise ExportError(
                'model.decode_head.out_channels is 1, which cannot be exported: train with one '
                'channel per class'
            )
        if getattr(self.model.data_preprocessor, 'test_cfg', None):
            raise ExportError(
                'model.data_preprocessor.test_cfg pads images, which cannot be exported: remove it'
            )
        _replace_resampling(model)

    def forward(self, images: Tensor) -> Tensor:
        metas = [dict(img_shape=images.shape[2:])]
        logits: Tensor = self.model.encode_decode(self.cast(images), metas)
        return logits.argmax(dim=1)


class AdaptiveAveragePool(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two matrix products, which can be exported at any size.

    The ONNX exporter supports `nn.AdaptiveAvgPool2d` only for sizes known in advance.

    Args:
        size: Height and width of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (
            _pooling_matrix(out, length, x) for out, length in zip(self.size, x.shape[2:])
        )
        return rows @ x @ columns.T


def _pooling_matrix(windows: int, length: int, like: Tensor) -> Tensor:
    """Return the weights `(windows, length)` of adaptive average pooling along one axis."""
    index = torch.arange(windows, device=like.device)[:, None]
    start = index * length // windows
    stop = ((index + 1) * length + windows - 1) // windows
    position = torch.arange(length, device=like.device)
    inside = (position >= start) & (position < stop)
    return inside.to(like.dtype) / (stop - start).to(like.dtype)


def _replace_resampling(model: nn.Module) -> None:
    """Replace layers whose export would be valid for the size of the example only.

    These are adaptive pooling and mmseg's `Upsample`, which calls `int()` on a size.
    """
    from mmseg.models.utils import Upsample

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(parent, name, AdaptiveAveragePool(_pair(child.output_size)))
            elif isinstance(child, Upsample) and child.size is None:
                scale, mode, align = child.scale_factor, child.mode, child.align_corners
                setattr(parent, name, nn.Upsample(None, scale, mode, align))
