"""Faster forward passes for inference on a CPU, where allocating a large map takes longer than
computing it.

They return what the plain forward passes in `layers.py` return, but write over their own
intermediate maps and split large ones. Writing over a map is safe only if no gradient will be
asked for, so `cpu_inference` selects them only then.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Largest hidden map of a ConvFFN. glibc returns blocks of 32 MiB and more to the system when they
# are freed, so every new map of that size has to be mapped again, page by page.
MAX_HIDDEN_BYTES = 16 * 2**20

Forward = Callable[[Any, Tensor], Tensor]


def is_cpu_inference(x: Tensor) -> bool:
    """Return whether x is on a CPU and no gradient, compiled graph or trace is asked for."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return x.device.type == 'cpu' and not torch.is_grad_enabled() and not traced


def cpu_inference(fast: Forward) -> Callable[[Forward], Forward]:
    """Let a module's forward pass run `fast` instead during CPU inference.

    Modules of which a part was replaced or wrapped keep the plain forward pass.

    Args:
        fast: Takes the module and its input, and returns what the decorated method returns.
    """

    def decorate(forward: Forward) -> Forward:
        @functools.wraps(forward)
        def choose(self: Any, x: Tensor) -> Tensor:
            use_fast = is_cpu_inference(x) and _has_only_convolutions(self)
            return fast(self, x) if use_fast else forward(self, x)

        return choose

    return decorate


class ReLU(nn.Module):
    """ReLU that writes over its input during CPU inference."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x, inplace=is_cpu_inference(x))


class SiLU(nn.Module):
    """SiLU (swish) that writes over its input during CPU inference."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=is_cpu_inference(x))


def attn_conv(self: Any, x: Tensor) -> Tensor:
    """`AttnConv.forward`, with the gate and the product computed in place."""
    q, k, v = self.dwconv(self.qkv(x)).chunk(3, dim=1)
    weights = self.gate(q * k)
    if self.scale != 1:
        weights = weights.mul_(self.scale)
    return weights.tanh_().mul_(v)


def conv_ffn(self: Any, x: Tensor) -> Tensor:
    """`ConvFFN.forward`, with GELU in place and the hidden map computed in strips of rows."""
    row_bytes = x.element_size() * self.fc1.out_channels * x.shape[3]
    rows = MAX_HIDDEN_BYTES // row_bytes
    if len(x) > 1 or rows >= x.shape[2]:
        return self.fc2(self.dwconv(torch.ops.aten.gelu_(self.fc1(x))))

    stride, reach = self.dwconv.stride[0], self.dwconv.kernel_size[0] // 2
    out_rows = max(1, rows // stride)
    height = -(-x.shape[2] // stride)
    outs = []
    for start in range(0, height, out_rows):
        stop = min(start + out_rows, height)
        # The strip holds every input row that the kernels of these output rows reach.
        first = max(0, start - reach // stride)
        strip = x[:, :, first * stride : (stop - 1) * stride + reach + 1]
        hidden = self.dwconv(torch.ops.aten.gelu_(self.fc1(strip)))
        outs.append(self.fc2(hidden[:, :, start - first : stop - first]))
    return torch.cat(outs, dim=2)


def _has_only_convolutions(module: nn.Module) -> bool:
    parts = (part for child in module.children() for part in _parts(child))
    return all(type(part) in (nn.Conv2d, SiLU) for part in parts)


def _parts(module: nn.Module) -> Iterable[nn.Module]:
    return module if type(module) is nn.Sequential else [module]
