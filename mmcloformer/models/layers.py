"""The parts of CloFormer, one class per box of the paper's Figures 2 to 4.

Every map is `(N, C, H, W)`. `norm`, `norm1` and `norm2` are GroupNorm with one group; the norms of
`norm_cfg` are BatchNorm by default. `GroupNorm1` and `DepthwiseConv2d` compute the same as torch's
GroupNorm and Conv2d, but faster.
Source: "Rethinking Local Perception in Lightweight Vision Transformer", arXiv 2303.17803.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .depthwise import DepthwiseConv2d
from .norm import GroupNorm1

FFN_KERNEL = 5
FFN_RATIO = 4


class Stem(BaseModule):
    """Four 3x3 convolutions (strides 2, 2, 1, 1), a 1x1 convolution and a norm.

    Maps `(N, in_channels, H, W)` to `(N, embed_dims, ceil(H / 4), ceil(W / 4))`.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels of the first stage.
        norm_cfg: Norm that follows each 3x3 convolution.
    """

    def __init__(self, in_channels: int, embed_dims: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()

        # mmcv's ConvModule warns about a bias before a norm; the released code has one.
        def conv3x3(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 3, stride, padding=1),
                build_norm_layer(norm_cfg, channels_out)[1],
                nn.ReLU(),
            )

        self.conv1 = conv3x3(in_channels, embed_dims // 2, stride=2)
        self.conv2 = conv3x3(embed_dims // 2, embed_dims, stride=2)
        self.conv3 = conv3x3(embed_dims, embed_dims, stride=1)
        self.conv4 = conv3x3(embed_dims, embed_dims, stride=1)
        self.proj = nn.Conv2d(embed_dims, embed_dims, 1)
        self.norm = GroupNorm1(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv4(self.conv3(self.conv2(self.conv1(x))))
        return self.norm(self.proj(x))


class AttnConv(BaseModule):
    """Local, high-frequency branch of the attention.

    A depthwise convolution, whose weights are shared over positions, aggregates query, key and
    value. The product of query and key then passes two 1x1 convolutions and a tanh; the result
    (the paper's context-aware weights) multiplies the value, elementwise.

    Maps `(N, embed_dims, H, W)` to `(N, num_heads * head_dims, H, W)`. Source: section 3.2.

    Args:
        embed_dims: Channels of the input.
        num_heads: Number of the block's heads assigned to this branch.
        head_dims: Channels per head.
        kernel_size: Kernel size of the depthwise convolution.
    """

    def __init__(self, embed_dims: int, num_heads: int, head_dims: int, kernel_size: int) -> None:
        super().__init__()
        dims = num_heads * head_dims
        self.scale = head_dims**-0.5
        self.qkv = nn.Conv2d(embed_dims, 3 * dims, 1)
        self.dwconv = DepthwiseConv2d(3 * dims, kernel_size)
        self.gate = nn.Sequential(nn.Conv2d(dims, dims, 1), nn.SiLU(), nn.Conv2d(dims, dims, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.dwconv(self.qkv(x)).chunk(3, dim=1)
        weights = torch.tanh(self.scale * self.gate(q * k))
        return weights * v


class PooledAttention(BaseModule):
    """Global, low-frequency branch of the attention: every position attends to a pooled map.

    Maps `(N, embed_dims, H, W)` to `(N, num_heads * head_dims, H, W)`. Keys and values come from
    the average-pooled map of `(ceil(H / window), ceil(W / window))`. Windows that extend past the
    border average the pixels inside the map, so any size is accepted. Source: section 3.3.

    Args:
        embed_dims: Channels of the input.
        num_heads: Number of the block's heads assigned to this branch.
        head_dims: Channels per head.
        window: Kernel size and stride of the pooling, in positions of the input map.
    """

    def __init__(self, embed_dims: int, num_heads: int, head_dims: int, window: int) -> None:
        super().__init__()
        dims = num_heads * head_dims
        self.num_heads = num_heads
        self.pool = (
            nn.AvgPool2d(window, ceil_mode=True, count_include_pad=False)
            if window > 1
            else nn.Identity()
        )
        self.q = nn.Conv2d(embed_dims, dims, 1)
        self.kv = nn.Conv2d(embed_dims, 2 * dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        (q,) = self._split_heads(self.q(x), 1)
        k, v = self._split_heads(self.kv(self.pool(x)), 2)
        out = F.scaled_dot_product_attention(q, k, v)
        # This order of reshape and permute keeps a batch of one in channels_last.
        out = out.transpose(1, 2).reshape(n, h, w, self.num_heads * q.shape[3])
        return out.permute(0, 3, 1, 2)

    def _split_heads(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        """Split `(N, parts * heads * d, H, W)` into `parts` tensors `(N, heads, H * W, d)`.

        The results are views if x is channels_last. Their last dimension is contiguous, which the
        fused attention kernels need.
        """
        n, c, h, w = x.shape
        head_dims = c // parts // self.num_heads
        x = x.permute(0, 2, 3, 1).contiguous()
        x = x.view(n, h * w, parts, self.num_heads, head_dims)
        return x.permute(2, 0, 3, 1, 4).unbind()


class CloAttention(BaseModule):
    """Attention of a block: local and global branches, concatenated and mixed by a 1x1 convolution.

    Maps `(N, embed_dims, H, W)` to the same shape.

    Args:
        embed_dims: Channels of the input and the output.
        num_heads: Number of heads of all branches together.
        group_split: Number of heads of each local branch, then of the global branch. Their sum is
            `num_heads`; a branch with 0 heads is omitted.
        kernel_sizes: Depthwise kernel size of each local branch.
        window: Pooling window of the global branch.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        group_split: Sequence[int],
        kernel_sizes: Sequence[int],
        window: int,
    ) -> None:
        super().__init__()
        head_dims = embed_dims // num_heads
        *local_heads, global_heads = group_split
        self.local = nn.ModuleList(
            AttnConv(embed_dims, heads, head_dims, kernel_size)
            for heads, kernel_size in zip(local_heads, kernel_sizes)
            if heads
        )
        self.pooled = (
            PooledAttention(embed_dims, global_heads, head_dims, window) if global_heads else None
        )
        self.proj = nn.Conv2d(embed_dims, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x) for branch in self.local]
        if self.pooled is not None:
            branches.append(self.pooled(x))
        return self.proj(torch.cat(branches, dim=1))


class ConvFFN(BaseModule):
    """Inverted bottleneck with a depthwise convolution, which downsamples if its stride is 2.

    Maps `(N, embed_dims, H, W)` to `(N, out_dims, ceil(H / stride), ceil(W / stride))`.

    Args:
        embed_dims: Channels of the input.
        out_dims: Channels of the output.
        stride: Stride of the depthwise convolution.
    """

    def __init__(self, embed_dims: int, out_dims: int, stride: int) -> None:
        super().__init__()
        hidden = FFN_RATIO * embed_dims
        self.fc1 = nn.Conv2d(embed_dims, hidden, 1)
        self.dwconv = DepthwiseConv2d(hidden, FFN_KERNEL, stride)
        self.fc2 = nn.Conv2d(hidden, out_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.dwconv(F.gelu(self.fc1(x))))


class Block(BaseModule):
    """A Clo block: attention, then ConvFFN, each with a norm before it and a residual around it.

    Maps `(N, embed_dims, H, W)` to the same shape.

    Args:
        attn: The attention, with `embed_dims` channels.
        ffn: The ConvFFN.
        embed_dims: Channels of the input.
        drop_path_rate: Probability of dropping a residual path of a sample in training.
        with_cp: Recompute the residual paths in the backward pass, which saves memory.
    """

    def __init__(
        self,
        attn: CloAttention,
        ffn: ConvFFN,
        embed_dims: int,
        drop_path_rate: float,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm1 = GroupNorm1(embed_dims)
        self.attn = attn
        self.norm2 = GroupNorm1(embed_dims)
        self.ffn = ffn
        self.shortcut: nn.Module = nn.Identity()  # DownsampleBlock has another.
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(self.attend(x))

    def attend(self, x: Tensor) -> Tensor:
        """First half of the block: `x + attention`."""
        return x + self.drop_path(self._checkpoint(lambda x: self.attn(self.norm1(x)), x))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Second half of the block: `shortcut(x) + ConvFFN`."""
        branch = self.drop_path(self._checkpoint(lambda x: self.ffn(self.norm2(x)), x))
        return self.shortcut(x) + branch

    def _checkpoint(self, branch: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        # The shortcut is not recomputed: a BatchNorm in it would update its statistics twice.
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(branch, x, use_reentrant=False)
        return branch(x)


class DownsampleBlock(Block):
    """The last block of stages 0 to 2, whose ConvFFN halves height and width for the next stage.

    The shortcut around the ConvFFN is a 5x5 convolution of stride 2, a norm, a 1x1 convolution.

    Args:
        attn: The attention, with `embed_dims` channels.
        ffn: The ConvFFN, with stride 2.
        embed_dims: Channels of the input.
        out_dims: Channels of the next stage.
        drop_path_rate: Probability of dropping a residual path of a sample in training.
        norm_cfg: Norm of the strided shortcut.
        with_cp: Recompute the residual paths in the backward pass, which saves memory.
    """

    def __init__(
        self,
        attn: CloAttention,
        ffn: ConvFFN,
        embed_dims: int,
        out_dims: int,
        drop_path_rate: float,
        norm_cfg: dict[str, Any],
        with_cp: bool,
    ) -> None:
        super().__init__(attn, ffn, embed_dims, drop_path_rate, with_cp)
        self.shortcut = nn.Sequential(
            nn.Conv2d(embed_dims, embed_dims, 5, stride=2, padding=2),
            build_norm_layer(norm_cfg, embed_dims)[1],
            nn.Conv2d(embed_dims, out_dims, 1),
        )

    def forward(  # type: ignore[override]
        self, x: Tensor, downsample: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Run the block.

        Args:
            x: Map `(N, embed_dims, H, W)`.
            downsample: Whether to run the ConvFFN, which only the next stage needs.

        Returns:
            The map before the ConvFFN, `(N, embed_dims, H, W)`: this stage's level of the pyramid.
            The input of the next stage, `(N, out_dims, ceil(H/2), ceil(W/2))`, or None.
        """
        x = self.attend(x)
        return x, self.feed_forward(x) if downsample else None
