"""Multi-scale deformable attention (arXiv 2010.04159) by mmcv's own torch function.

mmcv itself calls that function on a CPU; its compiled op runs on GPUs only.
"""

import torch
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from torch import Tensor


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sample every level at the given points and return the weighted sum.

    Args:
        value: (N, S, heads, d), the maps of all levels, flattened and concatenated.
        value_spatial_shapes: (L, 2), height and width of each level.
        value_level_start_index: (L,), not used; it follows from the shapes.
        sampling_locations: (N, Q, heads, L, points, 2), x and y as fractions of the map.
        attention_weights: (N, Q, heads, L, points).
        im2col_step: Batch step of mmcv's kernel, not used.

    Returns:
        (N, Q, heads * d), with the dtype of `value`.
    """
    # Convert once: each use of a GPU tensor as a size synchronises with the GPU.
    shapes = value_spatial_shapes.tolist()
    output = multi_scale_deformable_attn_pytorch(
        value, shapes, sampling_locations, attention_weights
    )
    return output.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Run the forward pass again and add the gradients to the last three tensors."""
    shapes = (value_spatial_shapes, value_level_start_index)
    inputs = value, sampling_locations, attention_weights = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            value, *shapes, sampling_locations, attention_weights, im2col_step
        )
    grads = torch.autograd.grad(output, inputs, grad_output)
    for total, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        total.add_(grad)
