"""A literal implementation of CloFormer: the reference of the tests and the benchmark's baseline.

One module per operation, `(N, C, H, W)` throughout, softmax spelled out, nothing optimised. The
names are those of `mmcloformer.CloFormer`, so that state dicts fit both. There is no drop path.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmcloformer.models import resolve_arch

POOL_WINDOWS = (8, 4, 2, 1)


def conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)
    return [conv, nn.BatchNorm2d(channels_out)]


class Stem(nn.Module):
    def __init__(self, in_channels: int, dims: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*conv_bn(in_channels, dims // 2, 3, 2), nn.ReLU())
        self.conv2 = nn.Sequential(*conv_bn(dims // 2, dims, 3, 2), nn.ReLU())
        self.conv3 = nn.Sequential(*conv_bn(dims, dims, 3, 1), nn.ReLU())
        self.conv4 = nn.Sequential(*conv_bn(dims, dims, 3, 1), nn.ReLU())
        self.proj = nn.Conv2d(dims, dims, 1)
        self.norm = nn.GroupNorm(1, dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(self.conv4(self.conv3(self.conv2(self.conv1(x))))))


class AttnConv(nn.Module):
    def __init__(self, dims: int, heads: int, head_dims: int, kernel: int) -> None:
        super().__init__()
        width = heads * head_dims
        self.scale = head_dims**-0.5
        self.qkv = nn.Conv2d(dims, 3 * width, 1)
        self.dwconv = nn.Conv2d(3 * width, 3 * width, kernel, padding=kernel // 2, groups=3 * width)
        self.gate = nn.Sequential(nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.dwconv(self.qkv(x)).chunk(3, dim=1)
        return torch.tanh(self.scale * self.gate(q * k)) * v


class PooledAttention(nn.Module):
    def __init__(self, dims: int, heads: int, head_dims: int, window: int) -> None:
        super().__init__()
        self.heads, self.head_dims = heads, head_dims
        self.scale = head_dims**-0.5
        self.pool = nn.AvgPool2d(window, ceil_mode=True, count_include_pad=False)
        self.q = nn.Conv2d(dims, heads * head_dims, 1)
        self.kv = nn.Conv2d(dims, 2 * heads * head_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        q = self.q(x).reshape(n, self.heads, self.head_dims, -1).transpose(2, 3)
        kv = self.kv(self.pool(x)).reshape(n, 2, self.heads, self.head_dims, -1)
        k, v = kv.transpose(3, 4).unbind(dim=1)
        weights = (self.scale * q @ k.transpose(2, 3)).softmax(dim=-1)
        return (weights @ v).transpose(2, 3).reshape(n, -1, height, width)


class Attention(nn.Module):
    def __init__(
        self, dims: int, heads: int, split: Sequence[int], kernels: Sequence[int], window: int
    ) -> None:
        super().__init__()
        *local, pooled = split
        head_dims = dims // heads
        self.local = nn.ModuleList(
            AttnConv(dims, count, head_dims, kernel)
            for count, kernel in zip(local, kernels)
            if count
        )
        self.pooled = PooledAttention(dims, pooled, head_dims, window) if pooled else None
        self.proj = nn.Conv2d(dims, dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        outs = [branch(x) for branch in self.local]
        if self.pooled is not None:
            outs.append(self.pooled(x))
        return self.proj(torch.cat(outs, dim=1))


class ConvFFN(nn.Module):
    def __init__(self, dims: int, out_dims: int, stride: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dims, 4 * dims, 1)
        self.act = nn.GELU()
        self.dwconv = nn.Conv2d(4 * dims, 4 * dims, 5, stride, padding=2, groups=4 * dims)
        self.fc2 = nn.Conv2d(4 * dims, out_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.dwconv(self.act(self.fc1(x))))


class Block(nn.Module):
    def __init__(self, attn: Attention, dims: int, out_dims: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, dims)
        self.attn = attn
        self.norm2 = nn.GroupNorm(1, dims)
        self.ffn = ConvFFN(dims, out_dims, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.shortcut = nn.Sequential(*conv_bn(dims, dims, 5, 2), nn.Conv2d(dims, out_dims, 1))

    def attend(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm1(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.ffn(self.norm2(x))


class LiteralCloFormer(nn.Module):
    """Images `(N, in_channels, H, W)` to the four normed maps of `mmcloformer.CloFormer`."""

    def __init__(self, arch: str | Mapping[str, Any] = 'xs', in_channels: int = 3) -> None:
        super().__init__()
        settings = resolve_arch(arch)
        dims = settings.embed_dims
        self.stem = Stem(in_channels, dims[0])
        self.stages = nn.ModuleList()
        for i, depth in enumerate(settings.depths):
            blocks = nn.ModuleList()
            for index in range(depth):
                strided = index == depth - 1 and i < 3
                attn = Attention(
                    dims[i],
                    settings.num_heads[i],
                    settings.group_splits[i],
                    settings.kernel_sizes[i],
                    POOL_WINDOWS[i],
                )
                blocks.append(Block(attn, dims[i], dims[i + strided], stride=2 if strided else 1))
            self.stages.append(blocks)
        for i in range(4):
            self.add_module(f'norm{i}', nn.GroupNorm(1, dims[i]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = []
        x = self.stem(x)
        for i, blocks in enumerate(self.stages):
            for block in cast(list[Block], blocks):
                attended = block.attend(x)
                x = block.feed_forward(attended)
            # The pyramid is taken before the strided ConvFFN of a stage's last block.
            outs.append(self.get_submodule(f'norm{i}')(attended if i < 3 else x))
        return tuple(outs)
