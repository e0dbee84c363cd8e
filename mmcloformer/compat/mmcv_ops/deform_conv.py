"""Deformable convolution, without (v1) and with (v2) modulation, by torchvision's kernels.

mmcv and torchvision both store offsets as (y, x) pairs in the order of the kernel's cells. One
gradient differs: that of an offset whose sample lies exactly at y = -1 or x = -1, as with offset 0
and padding, is 0 in mmcv, and here the slope to the first row or column.

The arguments are those of mmcv: `input` (N, C, H, W), `weight` (C', C / groups, kh, kw), `bias`
(C',), `offset` (N, 2 * deform_groups * kh * kw, H', W') in pixels of the input, `mask`
(N, deform_groups * kh * kw, H', W'), `output` and its gradient (N, C', H', W'). `columns` and
`ones`, buffers of mmcv's kernels, are not used. `geometry` is mmcv's keywords for stride, padding,
dilation and groups, and for kernel size and batch step, which are not used. Gradients of offsets
and masks are overwritten, and all others added to.
"""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from .standin import at_least_float32, missing_op

# mmcv's names of the arguments of torchvision's kernels, in their order.
_PLAIN = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
_MODULATED = (
    *('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w'),
    *('group', 'deformable_group'),
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
    """Convolve at positions shifted by the offsets."""
    tensors = _tensors(input, weight, offset)
    arguments = [geometry[name] for name in _PLAIN]
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
    """Compute the gradients of input and offsets.

    torchvision's kernel computes all gradients at once, so v1 computes them twice.
    """
    grads = _backward(grad_output, _tensors(input, weight, offset), _PLAIN, geometry)
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
    """Compute the gradient of the weight, multiplied by `scale`."""
    # The gradient does not depend on the weight, which mmcv does not pass.
    tensors = _tensors(input, torch.zeros_like(grad_weight), offset)
    grad_weight.add_(_backward(grad_output, tensors, _PLAIN, geometry)[1], alpha=scale)


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

    Raises:
        MissingOpError: The offsets have another height and width than the output. mmcv's kernel
            then reads some of them at wrong positions, and mmdet's DyHead relies on that.
    """
    if offset.shape[2:] != output.shape[2:]:
        raise missing_op(
            'modulated_deform_conv_forward with offsets of another size than the output'
        )
    tensors = _tensors(input, weight, offset, mask, bias if with_bias else None)
    arguments = [geometry[name] for name in _MODULATED]
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
    """Compute all gradients; that of the bias only `with_bias`."""
    tensors = _tensors(input, weight, offset, mask, bias if with_bias else None)
    grads = _backward(grad_output, tensors, _MODULATED, geometry)
    grad_input.add_(grads[0])
    grad_weight.add_(grads[1])
    grad_offset.copy_(grads[2])
    grad_mask.copy_(grads[3])
    if with_bias:
        grad_bias.add_(grads[4])


def _tensors(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, ...]:
    mask = input.new_zeros(len(input), 1) if mask is None else mask
    bias = input.new_zeros(len(weight)) if bias is None else bias
    return at_least_float32(input, weight, offset, mask, bias)


def _backward(
    grad_output: Tensor,
    tensors: tuple[Tensor, ...],
    names: tuple[str, ...],
    geometry: dict[str, int],
) -> tuple[Tensor, ...]:
    kernel = torch.ops.torchvision._deform_conv2d_backward
    arguments = [geometry[name] for name in names]
    return kernel(*at_least_float32(grad_output, *tensors), *arguments, names is _MODULATED)
