"""RoIAlign by torchvision's kernel.

The arguments are those of mmcv: `input` (N, C, H, W), `rois` (K, 5) with the index into the batch
and the corners x1, y1, x2, y2 in image pixels, `output` and its gradient
(K, C, aligned_height, aligned_width). `argmax_y` and `argmax_x` are buffers of max pooling, which
torchvision does not have.
"""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from .standin import at_least_float32, missing_op

_AVERAGE = 1


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average-pool every region to a grid, which overwrites `output`.

    Raises:
        MissingOpError: `pool_mode` is max pooling.
    """
    _check_average(pool_mode)
    size = (aligned_height, aligned_width)
    tensors = at_least_float32(input, rois)
    kernel = torch.ops.torchvision.roi_align
    output.copy_(kernel(*tensors, spatial_scale, *size, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of the input to `grad_input`.

    Raises:
        MissingOpError: `pool_mode` is max pooling.
    """
    _check_average(pool_mode)
    sizes = (aligned_height, aligned_width, *grad_input.shape)
    tensors = at_least_float32(grad_output, rois)
    kernel = torch.ops.torchvision._roi_align_backward
    grad_input.add_(kernel(*tensors, spatial_scale, *sizes, sampling_ratio, aligned))


def _check_average(pool_mode: int) -> None:
    if pool_mode != _AVERAGE:
        raise missing_op("roi_align with pool_mode='max'")
