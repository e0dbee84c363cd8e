"""Deformable convolution through mmcv's own functions, against sampling in plain torch."""

from typing import NamedTuple

import pytest
import torch
from mmcv.ops import (
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)
from torch import Tensor
from torch.nn import functional


class Case(NamedTuple):
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    deform_groups: int = 1

    @property
    def geometry(self) -> tuple[object, ...]:
        return self.stride, self.padding, self.dilation, self.groups, self.deform_groups


CASES = [
    Case(),
    Case(kernel=(3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 3)),
    Case(kernel=(1, 3), padding=(2, 0), groups=2, deform_groups=4),
    Case(stride=(1, 2), dilation=(2, 1), groups=4, deform_groups=2),
]


def _tensors(case: Case, dtype: torch.dtype = torch.float64, device: str = 'cpu') -> list[Tensor]:
    """Return input, offset, mask, weight, bias. No sample lies on a pixel, where the derivative is
    discontinuous."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 4 // case.groups, *case.kernel, generator=generator)
    input = torch.randn(2, 4, 7, 8, generator=generator)
    size = functional.conv2d(
        input, weight, None, case.stride, case.padding, case.dilation, case.groups
    ).shape[2:]
    cells = case.deform_groups * case.kernel[0] * case.kernel[1]
    whole = torch.randint(-2, 3, (2, 2 * cells, *size), generator=generator)
    offset = whole + 0.1 + 0.8 * torch.rand(whole.shape, generator=generator)
    mask = torch.rand(2, cells, *size, generator=generator)
    tensors = [input, offset, mask, weight, torch.randn(4, generator=generator)]
    return [tensor.to(device, dtype).requires_grad_() for tensor in tensors]


def _by_sampling(
    case: Case, input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    height, width = input.shape[2:]
    rows, columns = case.kernel
    count = rows * columns
    size = offset.shape[2:]
    shifts = offset.unflatten(1, (case.deform_groups, count, 2))
    factors = mask.unflatten(1, (case.deform_groups, count))
    y, x = torch.meshgrid(*(torch.arange(length) for length in size), indexing='ij')
    samples = torch.zeros(*input.shape[:2], count, *size, dtype=input.dtype)
    width_of_group = input.shape[1] // case.deform_groups
    for group in range(case.deform_groups):
        channels = slice(group * width_of_group, (group + 1) * width_of_group)
        for cell in range(count):
            row, column = divmod(cell, columns)
            at_y = y * case.stride[0] - case.padding[0] + row * case.dilation[0]
            at_x = x * case.stride[1] - case.padding[1] + column * case.dilation[1]
            at_y = at_y + shifts[:, group, cell, 0]
            at_x = at_x + shifts[:, group, cell, 1]
            grid = torch.stack([2 * at_x / (width - 1) - 1, 2 * at_y / (height - 1) - 1], dim=-1)
            sampled = functional.grid_sample(input[:, channels], grid, align_corners=True)
            samples[:, channels, cell] = sampled * factors[:, group, None, cell]
    grouped = samples.unflatten(1, (case.groups, -1))
    kernels = weight.flatten(2).unflatten(0, (case.groups, -1))
    out = torch.einsum('ngckhw,gock->ngohw', grouped, kernels).flatten(1, 2)
    return out + bias[:, None, None]


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('kind', ['modulated', 'without bias', 'plain'])
def test_it_is_sampling(case: Case, kind: str, device: str) -> None:
    references = _tensors(case)
    tensors = _tensors(case, device=device)
    input, offset, _, weight, _ = tensors
    if kind == 'modulated':
        out = modulated_deform_conv2d(*tensors, *case.geometry)
        expected = _by_sampling(case, *references)
    elif kind == 'without bias':
        del tensors[4]
        out = modulated_deform_conv2d(*tensors, None, *case.geometry)
        expected = _by_sampling(case, *references[:4], 0 * references.pop())
    else:
        tensors = [input, offset, weight]
        out = deform_conv2d(*tensors, *case.geometry)
        ones = torch.ones_like(references[2])
        expected = _by_sampling(case, *references[:2], ones, *references[3:4], 0 * references[4])
        references = [*references[:2], references[3]]
    torch.testing.assert_close(out.cpu(), expected)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    torch.testing.assert_close(
        [each.cpu() for each in torch.autograd.grad(out, tensors, grad)],
        list(torch.autograd.grad(expected, references, grad.cpu())),
    )


@pytest.mark.parametrize('layer', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_untrained_layer_is_an_ordinary_convolution(layer: type[torch.nn.Module]) -> None:
    # Its offsets start at 0 and its mask at one half.
    module = layer(4, 6, 3, stride=2, padding=1, groups=2, deform_groups=2)
    input = torch.randn(2, 4, 9, 8)
    expected = functional.conv2d(input, module.weight, None, 2, 1, 1, 2)
    factor = 0.5 if layer is ModulatedDeformConv2dPack else 1.0
    torch.testing.assert_close(module(input), factor * expected, rtol=1e-4, atol=1e-5)


def test_input_smaller_than_the_kernel() -> None:
    layer = DeformConv2d(1, 1, 3, padding=1)
    offset = torch.zeros(1, 18, 2, 2)
    input = torch.randn(1, 1, 2, 2)
    expected = functional.conv2d(input, layer.weight, None, 1, 1)
    torch.testing.assert_close(layer(input, offset), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision(dtype: torch.dtype, device: str) -> None:
    # Under autocast only the offsets are in half precision; mmcv casts the rest.
    input, offset, mask, weight, bias = _tensors(Case(), torch.float32, device)
    out = modulated_deform_conv2d(input, offset.to(dtype), mask, weight, bias, *Case().geometry)
    rounded = [tensor.to(dtype).float() for tensor in (input, offset, mask, weight, bias)]
    expected = modulated_deform_conv2d(*rounded, *Case().geometry)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype))
    out.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def _slopes(input: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes from the samples of a 3x3 kernel to the pixels below and to the right.

    Both are (N, C, 9, H, W) for stride and padding 1; the samples are pixels, 0 outside the input.
    """
    height, width = input.shape[2:]
    padded = functional.pad(input, (1, 2, 1, 2))

    def shifted(down: int, right: int) -> Tensor:
        cells = [divmod(cell, 3) for cell in range(9)]
        views = [padded[..., y + down :, x + right :][..., :height, :width] for y, x in cells]
        return torch.stack(views, dim=2)

    return shifted(1, 0) - shifted(0, 0), shifted(0, 1) - shifted(0, 0)


@pytest.mark.parametrize('modulated', [False, True])
def test_samples_at_minus_one_have_a_slope(modulated: bool, device: str) -> None:
    """The one difference from mmcv, whose kernels give 0 there: zero offsets with padding."""
    case = Case()
    tensors = _tensors(case, device=device)
    input, offset, mask, weight, bias = tensors
    offset.data.zero_()
    if not modulated:
        mask.data.fill_(1)
        bias.data.zero_()
        tensors = [input, offset, weight]
        out = deform_conv2d(*tensors, *case.geometry)
    else:
        out = modulated_deform_conv2d(*tensors, *case.geometry)
    expected = _by_sampling(case, *(each.cpu() for each in (input, offset, mask, weight, bias)))
    torch.testing.assert_close(out.cpu(), expected)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    others = [tensor for tensor in tensors if tensor is not offset]
    torch.testing.assert_close(
        torch.autograd.grad(out, others, grad, retain_graph=True),
        torch.autograd.grad(expected, others, grad.cpu()),
    )

    (found,) = torch.autograd.grad(out, offset, grad)
    # The gradient of each sample's value, then of its position: slopes to the next pixels.
    sampled = torch.einsum('nohw,ock->nckhw', grad, weight.flatten(2)) * mask[:, None]
    slopes = [(sampled * slope).sum(dim=1) for slope in _slopes(input)]
    torch.testing.assert_close(found, torch.stack(slopes, dim=2).flatten(1, 2))

    # mmcv: 0 for a sample with y <= -1 or x <= -1. In torchvision only the slope across is not 0.
    edges = torch.zeros(2, 9, *input.shape[2:], dtype=torch.bool, device=device)
    edges[0, :3, 0] = True
    edges[1, ::3, :, 0] = True
    for axis, slope in enumerate(slopes):
        by_mmcv = slope.masked_fill(edges.any(dim=0), 0)
        differs = (slope != by_mmcv).any(dim=0)
        assert differs.any()
        assert not (differs & ~edges[axis]).any()
