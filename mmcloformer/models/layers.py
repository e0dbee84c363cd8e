"""The parts of CloFormer, one class for each box of the paper's Figures 2 to 4.

Every map is `(N, C, H, W)`; every "norm" is GroupNorm with one group.
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

from .norm import LayerNorm2d

FFN_KERNEL = 5
FFN_RATIO = 4
# Of a ConvFFN's hidden map in inference on a CPU. glibc hands blocks of 32 MiB and more back to
# the system at once, and each new page of the next one costs more than what is computed in it.
STRIP_BYTES = 16 * 2**20


# On a CPU a large map costs several times more to allocate, page by page, than to compute, so
# what follows writes over its input wherever no gradient will ask for that.


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


def _residual(branch: Tensor, x: Tensor) -> Tensor:
    # Autocast keeps the trunk in single precision beside branches in half.
    return branch.add_(x) if branch.dtype == x.dtype else x + branch


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

        # Not mmcv's ConvModule: it warns of the biases before the norms, which the released
        # weights have.
        def conv3x3(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 3, stride, padding=1),
                build_norm_layer(norm_cfg, channels_out)[1],
                nn.ReLU(inplace=True),
            )

        self.conv1 = conv3x3(in_channels, embed_dims // 2, stride=2)
        self.conv2 = conv3x3(embed_dims // 2, embed_dims, stride=2)
        self.conv3 = conv3x3(embed_dims, embed_dims, stride=1)
        self.conv4 = conv3x3(embed_dims, embed_dims, stride=1)
        self.proj = nn.Conv2d(embed_dims, embed_dims, 1)
        self.norm = LayerNorm2d(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv4(self.conv3(self.conv2(self.conv1(x))))
        return self.norm(self.proj(x))


class AttnConv(BaseModule):
    """Local, high-frequency branch: a depthwise convolution shares weights over the map, and
    context-aware weights, made from the Hadamard product of query and key, gate its values.

    Maps `(N, embed_dims, H, W)` to `(N, num_heads * head_dims, H, W)`. Source: section 3.2.

    Args:
        embed_dims: Channels of the input.
        num_heads: Heads that this branch takes of the block's.
        head_dims: Channels a head.
        kernel_size: Side of the depthwise kernel.
    """

    def __init__(self, embed_dims: int, num_heads: int, head_dims: int, kernel_size: int) -> None:
        super().__init__()
        dims = num_heads * head_dims
        self.scale = head_dims**-0.5
        self.qkv = nn.Conv2d(embed_dims, 3 * dims, 1)
        self.dwconv = nn.Conv2d(
            3 * dims, 3 * dims, kernel_size, padding=kernel_size // 2, groups=3 * dims
        )
        self.gate = nn.Sequential(
            nn.Conv2d(dims, dims, 1), nn.SiLU(inplace=True), nn.Conv2d(dims, dims, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.dwconv(self.qkv(x)).chunk(3, dim=1)
        weights = self.gate(q * k)
        if self.scale != 1:
            weights.mul_(self.scale)
        weights.tanh_()
        return weights * v if weights.requires_grad else weights.mul_(v)


class PooledAttention(BaseModule):
    """Global, low-frequency branch: every position attends to an average-pooled map.

    Maps `(N, embed_dims, H, W)` to `(N, num_heads * head_dims, H, W)`; keys and values come
    from a map of `(ceil(H / window), ceil(W / window))`, where a window cut by the border
    averages what it holds, so that any size goes in. Source: section 3.3.

    Args:
        embed_dims: Channels of the input.
        num_heads: Heads that this branch takes of the block's.
        head_dims: Channels a head.
        window: Side of the pooling window, in positions of this map.
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

    def _heads(self, x: Tensor) -> Tensor:
        """`(N, heads * d, H, W)` to `(N, heads, H * W, d)`; a view where x is channels_last.

        The last stride must be 1: only then does no SDPA backend write out the scores.
        """
        n, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1).contiguous()
        return x.view(n, h * w, self.num_heads, c // self.num_heads).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(self.pool(x)).chunk(2, dim=1)
        out = F.scaled_dot_product_attention(self._heads(self.q(x)), self._heads(k), self._heads(v))
        # In this order a batch of one keeps the strides by which torch knows channels_last.
        n, _, h, w = x.shape
        return out.transpose(1, 2).reshape(n, h, w, out.shape[1] * out.shape[3]).permute(0, 3, 1, 2)


class CloAttention(BaseModule):
    """Local and global branches side by side, concatenated and mixed.

    Args:
        embed_dims: Channels in and out.
        num_heads: Heads of all branches together.
        group_split: Heads of each local branch, then of the global one; a zero leaves the
            branch out.
        kernel_sizes: Depthwise kernel of each local branch.
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
    """Inverted bottleneck with a depthwise convolution, which also downsamples.

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
        self.dwconv = nn.Conv2d(
            hidden, hidden, FFN_KERNEL, stride, padding=FFN_KERNEL // 2, groups=hidden
        )
        self.fc2 = nn.Conv2d(hidden, out_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = STRIP_BYTES // (x.element_size() * self.fc1.out_channels * width)
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        whole = torch.is_grad_enabled() or torch.compiler.is_compiling() or tracing
        if whole or x.device.type != 'cpu' or len(x) > 1 or rows >= height:
            return self.fc2(self.dwconv(_gelu(self.fc1(x))))
        return self._forward_in_strips(x, rows)

    def _forward_in_strips(self, x: Tensor, rows: int) -> Tensor:
        """The same, some `rows` of the input at a time and those that their kernels reach."""
        stride, reach = self.dwconv.stride[0], FFN_KERNEL // 2
        step = max(1, rows // stride)
        height = -(-x.shape[2] // stride)
        outs = []
        for start in range(0, height, step):
            stop = min(start + step, height)
            first = max(0, start - reach // stride)
            strip = x[:, :, first * stride : (stop - 1) * stride + reach + 1]
            hidden = self.dwconv(_gelu(self.fc1(strip)))
            outs.append(self.fc2(hidden[:, :, start - first : stop - first]))
        return torch.cat(outs, dim=2)


class Block(BaseModule):
    """A Clo block: attention, then ConvFFN, each a residual branch behind its norm.

    With `out_dims` other than `embed_dims` it is the last of its stage: it halves the map and
    a strided shortcut replaces the identity around the ConvFFN.

    Args:
        attn: The attention, `embed_dims` channels in and out.
        embed_dims: Channels of the input.
        out_dims: Channels of the output.
        stride: 2 for the last block of the first three stages, else 1.
        drop_path_rate: Chance to drop a residual branch of a sample in training.
        norm_cfg: Norm of the strided shortcut.
        with_cp: Recompute the residual branches in the backward pass to save memory.
    """

    def __init__(
        self,
        attn: CloAttention,
        embed_dims: int,
        out_dims: int,
        stride: int,
        drop_path_rate: float,
        norm_cfg: dict[str, Any],
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm1 = LayerNorm2d(embed_dims)
        self.attn = attn
        self.norm2 = LayerNorm2d(embed_dims)
        self.ffn = ConvFFN(embed_dims, out_dims, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(embed_dims, embed_dims, 5, stride, padding=2),
                build_norm_layer(norm_cfg, embed_dims)[1],
                nn.Conv2d(embed_dims, out_dims, 1),
            )
        self.drop_path = DropPath(drop_path_rate)

    def _branch(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        # The shortcut stays outside: recomputing its BatchNorm would update the running
        # statistics twice a step.
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(function, x, use_reentrant=False)
        return function(x)

    def attend(self, x: Tensor) -> Tensor:
        """First half: `x + attention`, at the block's input resolution."""
        return _residual(self.drop_path(self._branch(lambda x: self.attn(self.norm1(x)), x)), x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Second half: `shortcut(x) + ConvFFN`, at the block's output resolution."""
        branch = self.drop_path(self._branch(lambda x: self.ffn(self.norm2(x)), x))
        return _residual(branch, self.shortcut(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(self.attend(x))
