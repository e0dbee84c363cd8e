"""Inference on a CPU, where allocating a large map takes longer than computing it."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from .depthwise import DepthwiseConv2d, is_traced
from .layers import ConvFFN

# Largest hidden map of a ConvFFN in inference. glibc returns blocks of 32 MiB and more to the
# system when they are freed, so every new map of that size has to be mapped again, page by page.
MAX_HIDDEN_BYTES = 16 * 2**20


class CpuConvFFN(ConvFFN):
    """ConvFFN that writes over its hidden map, and computes a single large image in strips of rows.

    It does so on a CPU if no gradient, compiled graph or trace is asked for, and if all parts are
    convolutions that no forward hook observes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != 'cpu' or torch.is_grad_enabled() or is_traced() or not self._is_plain():
            return super().forward(x)
        row_bytes = x.element_size() * self.fc1.out_channels * x.shape[3]
        rows = MAX_HIDDEN_BYTES // row_bytes
        if len(x) > 1 or rows >= x.shape[2]:
            return self.fc2(self._hidden(x))

        stride, reach = self.dwconv.stride[0], self.dwconv.kernel_size[0] // 2
        out_rows = max(1, rows // stride)
        height = -(-x.shape[2] // stride)
        outs = []
        for start in range(0, height, out_rows):
            stop = min(start + out_rows, height)
            # The strip holds every input row that the kernels of these output rows reach.
            first = max(0, start - reach // stride)
            strip = x[:, :, first * stride : (stop - 1) * stride + reach + 1]
            outs.append(self.fc2(self._hidden(strip)[:, :, start - first : stop - first]))
        return torch.cat(outs, dim=2)

    def _hidden(self, x: Tensor) -> Tensor:
        return self.dwconv(torch.ops.aten.gelu_(self.fc1(x)))

    def _is_plain(self) -> bool:
        observed = hooks._global_forward_hooks or hooks._global_forward_pre_hooks
        return not observed and all(map(_is_plain_convolution, self.children()))


def _is_plain_convolution(part: nn.Module) -> bool:
    plain = type(part) in (nn.Conv2d, DepthwiseConv2d)
    return plain and not part._forward_hooks and not part._forward_pre_hooks
