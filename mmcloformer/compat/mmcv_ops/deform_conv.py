"""Deformable convolution, without (v1) and with (v2) modulation, by torchvision's kernels.

mmcv and torchvision both store offsets as (y, x) pairs in the order of the kernel's cells. One
gradient differs: that of an offset whose sample lies exactly at y = -1 or x = -1, as with offset 0
and padding, is 0 in mmcv, and here the slope to the first row or column.
"""

from collections.abc import Mapping

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from .standin import at_least_float32, missing_op

# mmcv's names of the arguments of torchvision's kernels, in their order.
_PLAIN = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
_MODULATED = (
    'stride_h',
    'stride_w',
    'pad_h',
    'pad_w',
    'dilation_h',
    'dilation_w',
    'group',
    'deformable_group',
)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **geometry: int,
) -> None:
    """Convolve at positions shifted by the offsets.

    Args:
        input: (N, C, H, W).
        weight: (C', C / groups, kh, kw).
        offset: (N, 2 * deform_groups * kh * kw, H', W'), in pixels of the input.
        output: (N, C', H', W'), overwritten.
        columns: Buffer of mmcv's kernel, not used.
        ones: Buffer of mmcv's kernel, not used.
        **geometry: mmcv's keywords for stride, padding, dilation and groups; its kernel size and
            batch step are not used.
    """
    tensors = _plain_tensors(input, weight, offset)
    arguments = _arguments(_PLAIN, geometry)
    output.copy_(torch.ops.torchvision.deform_conv2d(*tensors, *arguments, False))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Compute the gradients of input and offsets; the other arguments are the forward pass's.

    torchvision's kernel computes all gradients at once, so v1 computes them twice.

    Args:
        grad_output: (N, C', H', W').
        grad_input: (N, C, H, W), added to.
        grad_offset: The shape of `offset`, overwritten.
    """
    tensors = _plain_tensors(input, weight, offset)
    grads = _backward(grad_output, tensors, _arguments(_PLAIN, geometry), modulated=False)
    grad_input.add_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    scale: float,
    **geometry: int,
) -> None:
    """Compute the gradient of the weight; the other arguments are the forward pass's.

    Args:
        grad_output: (N, C', H', W').
        grad_weight: (C', C / groups, kh, kw), `scale` times the gradient is added to it.
        scale: Factor of the gradient.
    """
    # The gradient does not depend on the weight, which mmcv does not pass.
    tensors = _plain_tensors(input, torch.zeros_like(grad_weight), offset)
    grads = _backward(grad_output, tensors, _arguments(_PLAIN, geometry), modulated=False)
    grad_weight.add_(grads[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Convolve at positions shifted by the offsets, each sample multiplied by its mask.

    Args:
        input: (N, C, H, W).
        weight: (C', C / groups, kh, kw).
        bias: (C',); ignored without `with_bias`.
        ones: Buffer of mmcv's kernel, not used.
        offset: (N, 2 * deform_groups * kh * kw, H', W'), in pixels of the input.
        mask: (N, deform_groups * kh * kw, H', W').
        output: (N, C', H', W'), overwritten.
        columns: Buffer of mmcv's kernel, not used.
        with_bias: Whether to add the bias.
        **geometry: mmcv's keywords for stride, padding, dilation and groups; its kernel size is
            not used.

    Raises:
        MissingOpError: The offsets have another height and width than the output. mmcv's kernel
            then reads some of them at wrong positions, and mmdet's DyHead relies on that.
    """
    if offset.shape[2:] != output.shape[2:]:
        raise missing_op(
            'modulated_deform_conv_forward with offsets of another size than the output'
        )
    tensors = _modulated_tensors(input, weight, offset, mask, bias, with_bias)
    arguments = _arguments(_MODULATED, geometry)
    output.copy_(torch.ops.torchvision.deform_conv2d(*tensors, *arguments, True))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Compute all gradients; the arguments not named here are the forward pass's.

    Args:
        grad_input: (N, C, H, W), added to.
        grad_weight: (C', C / groups, kh, kw), added to.
        grad_bias: (C',), added to; not changed without `with_bias`.
        grad_offset: The shape of `offset`, overwritten.
        grad_mask: The shape of `mask`, overwritten.
        grad_output: (N, C', H', W').
    """
    tensors = _modulated_tensors(input, weight, offset, mask, bias, with_bias)
    grads = _backward(grad_output, tensors, _arguments(_MODULATED, geometry), modulated=True)
    grad_input.add_(grads[0])
    grad_weight.add_(grads[1])
    grad_offset.copy_(grads[2])
    grad_mask.copy_(grads[3])
    if with_bias:
        grad_bias.add_(grads[4])


def _plain_tensors(input: Tensor, weight: Tensor, offset: Tensor) -> tuple[Tensor, ...]:
    no_mask, no_bias = input.new_zeros(len(input), 1), input.new_zeros(len(weight))
    return at_least_float32(input, weight, offset, no_mask, no_bias)


def _modulated_tensors(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, with_bias: bool
) -> tuple[Tensor, ...]:
    added = bias if with_bias else input.new_zeros(len(weight))
    return at_least_float32(input, weight, offset, mask, added)


def _arguments(names: tuple[str, ...], geometry: Mapping[str, int]) -> list[int]:
    return [geometry[name] for name in names]


def _backward(
    grad_output: Tensor, tensors: tuple[Tensor, ...], arguments: list[int], modulated: bool
) -> tuple[Tensor, ...]:
    kernel = torch.ops.torchvision._deform_conv2d_backward
    return kernel(*at_least_float32(grad_output, *tensors), *arguments, modulated)
