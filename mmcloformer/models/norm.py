"""The network's norm."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Largest map of an image, in elements, that torch's LayerNorm kernel normalises on a GPU. It is
# one call, but uses one thread block per image. Maps of 224x224 images are smaller than this.
MAX_LAYER_NORM = 2**18


class GroupNorm1(nn.GroupNorm):
    """GroupNorm with one group: statistics over `(C, H, W)`, one weight and bias per channel.

    The output has the dtype of the input, also under autocast. Statistics are computed in
    float32, or in float64 for a float64 input.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    @torch.no_grad()
    def fold_affine(self, consumers: Sequence[nn.Conv2d]) -> None:
        """Move the weight and bias into the 1x1 convolutions that alone read the output.

        Args:
            consumers: The convolutions; they have a bias and no padding.
        """
        for conv in consumers:
            # Without padding the bias has the same effect at every position.
            cast(Tensor, conv.bias).add_(conv.weight.flatten(1) @ self.bias)
            conv.weight.mul_(self.weight[:, None, None])
        self.affine = False
        self.register_parameter('weight', None)
        self.register_parameter('bias', None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map `(N, C, H, W)`."""
        if x.is_cuda:
            # A compiler generates its own kernels, and with dynamic shapes knows no size.
            small = not torch.compiler.is_compiling() and x.shape[1:].numel() <= MAX_LAYER_NORM
            return self.normalize_by_layer_norm(x) if small else self.normalize_by_reduction(x)
        learns = self.affine and (self.weight.requires_grad or self.bias.requires_grad)
        # If only the weight and bias need gradients, the backward pass of torch's CPU kernel
        # crashes for a channels_last input (torch 2.11).
        if torch.is_grad_enabled() and learns and not x.requires_grad:
            return self.normalize_by_reduction(x)
        return super().forward(x).to(x.dtype)

    def normalize_by_layer_norm(self, x: Tensor) -> Tensor:
        """Compute the same in two calls, or in one without weight and bias.

        torch's GroupNorm kernel would first copy a channels_last map.
        """
        with torch.autocast(x.device.type, enabled=False):  # It would cast the map to float32.
            if x.is_contiguous():
                out = F.layer_norm(x, x.shape[1:], eps=self.eps)
            else:
                rows = x.permute(0, 2, 3, 1)
                out = F.layer_norm(rows, rows.shape[1:], eps=self.eps).permute(0, 3, 1, 2)
            if self.affine:
                weight, bias = self.weight[:, None, None], self.bias[:, None, None]
                out = torch.addcmul(bias, out, weight).to(x.dtype)
            return out

    def normalize_by_reduction(self, x: Tensor) -> Tensor:
        """Compute the same with `var_mean`, which parallelises over the whole GPU."""
        wide = x if x.dtype == torch.float64 else x.float()
        var, mean = torch.var_mean(wide, (1, 2, 3), correction=0, keepdim=True)
        scale = (var + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            weight, bias = self.weight[:, None, None], self.bias[:, None, None]
            scale, shift = scale * weight, shift * weight + bias
        return torch.addcmul(shift, x, scale).to(x.dtype)
