"""Depthwise convolution that trains faster on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Elements of a map that take part in one step of the weight gradient, so that they stay in cache.
CHUNK = 2**17


class DepthwiseConv2d(nn.Conv2d):
    """Conv2d with one filter per channel, padded so that stride 1 keeps the size.

    It differs from Conv2d only in training in float32 on a CPU, with filters larger than 3x3: there
    `weight_gradient` is 2 to 4 times as fast as oneDNN's kernel, and for more than 1024 channels
    up to 40 times, because that kernel then takes 20 ms for the smallest channels_last map.

    Args:
        channels: Channels of the input and the output.
        kernel_size: Height and width of the filters, an odd number.
        stride: Stride.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1) -> None:
        padding = kernel_size // 2
        super().__init__(channels, channels, kernel_size, stride, padding, groups=channels)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        learns = torch.is_grad_enabled() and weight.requires_grad
        single = x.dtype == torch.float32 and not torch.is_autocast_enabled('cpu')
        large = weight.shape[-1] > 3
        supported = single and large and x.device.type == 'cpu' and not is_traced()
        if learns and supported and len(x) > 0:
            return _DepthwiseConv.apply(x, weight, bias, self.stride[0])
        return super()._conv_forward(x, weight, bias)


def is_traced() -> bool:
    """Return whether the operations are recorded for a compiled or exported graph."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


class _DepthwiseConv(torch.autograd.Function):
    """`F.conv2d` with the weight gradient of `weight_gradient`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        grad_x = grad_weight = grad_bias = None
        channels, _, kernel, _ = weight.shape
        if of_x:
            grad_x, _, _ = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None, [ctx.stride] * 2, [kernel // 2] * 2, [1, 1]),
                *(False, [0, 0], channels, [True, False, False]),
            )
        if of_weight:
            grad_weight = weight_gradient(x, grad, kernel, ctx.stride)
        if of_bias:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None

    @staticmethod
    def jvp(
        ctx: Any, x_t: Tensor | None, weight_t: Tensor | None, bias_t: Tensor | None, _: None
    ) -> Tensor:
        x, weight = ctx.saved_tensors
        x_t = torch.zeros_like(x) if x_t is None else x_t
        weight_t = torch.zeros_like(weight) if weight_t is None else weight_t
        out = _DepthwiseConv.forward(x_t, weight, None, ctx.stride)
        return out + _DepthwiseConv.forward(x, weight_t, bias_t, ctx.stride)


def weight_gradient(x: Tensor, grad: Tensor, kernel: int, stride: int) -> Tensor:
    """Compute the weight gradient of a depthwise convolution.

    It is again a depthwise convolution: of the padded input, with the gradient of the output as
    filters and the stride as dilation. The maps of all images take part as groups of one call, a
    strip of rows at a time.

    Args:
        x: Input `(N, C, H, W)`.
        grad: Gradient of the output `(N, C, ceil(H / stride), ceil(W / stride))`.
        kernel: Height and width of the filters.
        stride: Stride.

    Returns:
        The gradient `(C, 1, kernel, kernel)`.
    """
    channels, height, width = grad.shape[1:]
    images = max(1, CHUNK // (channels * height * width))
    rows = max(1, CHUNK // (channels * width))
    total = grad.new_zeros(channels, 1, kernel, kernel)
    for maps, grads in zip(torch.split(x, images), torch.split(grad, images)):
        groups = len(maps) * channels
        padded = F.pad(maps, (kernel // 2,) * 4)
        for i, filters in enumerate(torch.split(grads, rows, dim=2)):
            top = i * rows * stride
            reached = padded[:, :, top : top + (filters.shape[2] - 1) * stride + kernel]
            out = F.conv2d(
                reached.reshape(1, groups, *reached.shape[2:]),
                filters.reshape(groups, 1, *filters.shape[2:]),
                dilation=stride,
                groups=groups,
            )
            total = total + out[..., :kernel, :kernel].reshape(-1, *total.shape).sum(0)
    return total
