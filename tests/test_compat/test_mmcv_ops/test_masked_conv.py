"""Convolution at selected positions through mmcv's own layer, against an ordinary convolution."""

import pytest
import torch
from mmcv.ops import MaskedConv2d
from torch.nn import functional


@pytest.mark.parametrize(
    ('kernel', 'padding'), [(1, 0), (3, 1), ((3, 5), (1, 2)), ((5, 1), (2, 0))]
)
@torch.no_grad()
def test_it_is_a_convolution_where_the_mask_is_set(
    kernel: int | tuple[int, int], padding: int | tuple[int, int], device: str
) -> None:
    torch.manual_seed(0)
    layer = MaskedConv2d(3, 4, kernel, padding=padding).to(device, torch.float64)
    images = torch.randn(1, 3, 6, 7, dtype=torch.float64, device=device)
    mask = torch.rand(1, 6, 7, device=device) > 0.5
    expected = functional.conv2d(images, layer.weight, layer.bias, padding=padding)
    expected = torch.where(mask, expected, 0)
    torch.testing.assert_close(layer(images, mask), expected)
    torch.testing.assert_close(layer(images, mask.float()), expected)


@torch.no_grad()
def test_all_and_no_positions() -> None:
    layer, images = MaskedConv2d(2, 3, 3, padding=1), torch.randn(1, 2, 4, 5)
    full = layer(images, torch.ones(1, 4, 5))
    torch.testing.assert_close(full, layer(images))
    assert not layer(images, torch.zeros(1, 4, 5)).any()


@torch.no_grad()
def test_without_padding_the_positions_are_those_of_the_output() -> None:
    layer, images = MaskedConv2d(2, 3, 3), torch.randn(1, 2, 5, 6)
    mask = torch.zeros(1, 5, 6)
    mask[:, :3, :4] = 1
    torch.testing.assert_close(layer(images, mask), layer(images))


@torch.no_grad()
def test_mixed_precision() -> None:
    layer, images = MaskedConv2d(2, 3, 3, padding=1), torch.randn(1, 2, 4, 5)
    mask = torch.rand(1, 4, 5) > 0.5
    with torch.autocast('cpu', torch.bfloat16):
        found = layer(images, mask)
    torch.testing.assert_close(found.float(), layer(images, mask), rtol=0.02, atol=0.02)
