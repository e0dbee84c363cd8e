"""RoIAlign by torchvision's kernel."""

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
    """Average-pool every region to a grid.

    Args:
        input: (N, C, H, W).
        rois: (K, 5), index into the batch and corners x1, y1, x2, y2 in image pixels.
        output: (K, C, aligned_height, aligned_width), overwritten.
        argmax_y: Buffer of max pooling, not used.
        argmax_x: Buffer of max pooling, not used.
        aligned_height: Rows of the grid.
        aligned_width: Columns of the grid.
        spatial_scale: Map pixels per image pixel.
        sampling_ratio: Samples per cell and axis; 0 takes about one per map pixel.
        pool_mode: 1 for average pooling; 0 for max pooling.
        aligned: Whether pixel centres lie at half-integer coordinates.

    Raises:
        MissingOpError: `pool_mode` is max pooling; torchvision has average pooling only.
    """
    _check_average(pool_mode)
    features, regions = at_least_float32(input, rois)
    output.copy_(
        torch.ops.torchvision.roi_align(
            features,
            regions,
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


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
    """Compute the gradient of the input; the arguments not named here are the forward pass's.

    Args:
        grad_output: (K, C, aligned_height, aligned_width).
        grad_input: (N, C, H, W), added to.

    Raises:
        MissingOpError: `pool_mode` is max pooling.
    """
    _check_average(pool_mode)
    grad, regions = at_least_float32(grad_output, rois)
    grad_input.add_(
        torch.ops.torchvision._roi_align_backward(
            grad,
            regions,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _check_average(pool_mode: int) -> None:
    if pool_mode != _AVERAGE:
        raise missing_op("roi_align with pool_mode='max'")
