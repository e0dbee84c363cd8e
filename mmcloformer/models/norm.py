"""The network's norm."""

import torch
from torch import Tensor, nn


class GroupNorm1(nn.GroupNorm):
    """GroupNorm with one group: statistics over `(C, H, W)`, one weight and bias per channel.

    The output has the dtype of the input, also under autocast. Statistics are computed in
    float32, or in float64 for a float64 input.

    Args:
        channels: Number of channels.
        affine: Whether to have a weight and a bias. The deploy form has none, since it folds them
            into the convolutions that follow.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(1, channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map `(N, C, H, W)`."""
        learns = self.affine and (self.weight.requires_grad or self.bias.requires_grad)
        # If only the weight and bias need gradients, the backward pass of torch's CPU kernel
        # crashes for a channels_last input (torch 2.11).
        only_affine_learns = torch.is_grad_enabled() and learns and not x.requires_grad
        if x.is_cuda or only_affine_learns:
            return self.normalize_by_reduction(x)
        return super().forward(x).to(x.dtype)

    def normalize_by_reduction(self, x: Tensor) -> Tensor:
        """Compute the same with `var_mean`.

        torch's GroupNorm kernel uses one thread block per image; `var_mean` parallelises over the
        whole GPU.
        """
        wide = x if x.dtype == torch.float64 else x.float()
        var, mean = torch.var_mean(wide, (1, 2, 3), correction=0, keepdim=True)
        scale = (var + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            weight, bias = self.weight[:, None, None], self.bias[:, None, None]
            scale, shift = scale * weight, shift * weight + bias
        return torch.addcmul(shift, x, scale).to(x.dtype)
