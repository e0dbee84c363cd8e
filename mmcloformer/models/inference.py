"""Inference on large maps on a CPU, where allocating a map takes longer than computing it."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from .layers import ConvFFN

# Largest hidden map of a ConvFFN. glibc returns blocks of 32 MiB and more to the system when they
# are freed, so every new map of that size has to be mapped again, page by page.
MAX_HIDDEN_BYTES = 16 * 2**20


class StripConvFFN(ConvFFN):
    """ConvFFN that computes a large map in strips of rows.

    It does so for one image on a CPU if no gradient, compiled graph or trace is asked for, and if
    all parts are convolutions that no forward hook observes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._may_split(x):
            return super().forward(x)
        row_bytes = x.element_size() * self.fc1.out_channels * x.shape[3]
        rows = MAX_HIDDEN_BYTES // row_bytes
        if len(x) > 1 or rows >= x.shape[2]:
            return super().forward(x)

        stride, reach = self.dwconv.stride[0], self.dwconv.kernel_size[0] // 2
        out_rows = max(1, rows // stride)
        height = -(-x.shape[2] // stride)
        outs = []
        for start in range(0, height, out_rows):
            stop = min(start + out_rows, height)
            # The strip holds every input row that the kernels of these output rows reach.
            first = max(0, start - reach // stride)
            strip = x[:, :, first * stride : (stop - 1) * stride + reach + 1]
            outs.append(super().forward(strip)[:, :, start - first : stop - first])
        return torch.cat(outs, dim=2)

    def _may_split(self, x: Tensor) -> bool:
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if x.device.type != 'cpu' or torch.is_grad_enabled() or traced:
            return False
        hooked = hooks._global_forward_hooks or hooks._global_forward_pre_hooks
        return not hooked and all(map(_is_plain_convolution, self.children()))


def _is_plain_convolution(part: nn.Module) -> bool:
    return type(part) is nn.Conv2d and not part._forward_hooks and not part._forward_pre_hooks
