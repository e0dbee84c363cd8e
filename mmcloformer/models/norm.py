"""The norm that stands before every branch and behind every output."""

import torch
from torch import Tensor, nn


class LayerNorm2d(nn.GroupNorm):
    """GroupNorm over `(C, H, W)` with one affine pair a channel, the network's only norm
    besides the stem's and the shortcut's BatchNorm.

    Args:
        channels: Channels of the map.
        affine: Whether it has that pair; the deploy form folds it into what follows.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(1, channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        learns = self.affine and (self.weight.requires_grad or self.bias.requires_grad)
        # Without a gradient for its input the backward pass of torch's own crashes in
        # channels_last (2.11.0, CPU).
        behind_frozen = torch.is_grad_enabled() and learns and not x.requires_grad
        if x.is_cuda or behind_frozen:
            return self.split(x)
        return super().forward(x)

    def split(self, x: Tensor) -> Tensor:
        """Compute the same by a reduction that torch splits over the whole GPU, where its own
        kernel gives each image to a single block of threads; then one affine map.

        Args:
            x: Map `(N, C, H, W)`.
        """
        var, mean = torch.var_mean(x.float(), (1, 2, 3), correction=0, keepdim=True)
        scale = (var + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            weight, bias = self.weight[:, None, None], self.bias[:, None, None]
            scale, shift = scale * weight, shift * weight + bias
        return torch.addcmul(shift, x, scale).to(x.dtype)
