"""Multi-scale deformable attention through mmcv's own autograd function, which a GPU uses."""

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor

SHAPES = torch.tensor([[5, 4], [3, 2]])
STARTS = torch.tensor([0, 20])


def _inputs(dtype: torch.dtype = torch.float64, device: str = 'cpu') -> list[Tensor]:
    """Values, locations, weights."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 26, 2, 3, generator=generator)
    locations = torch.rand(2, 4, 2, 2, 3, 2, generator=generator)
    weights = torch.rand(2, 4, 2, 2, 3, generator=generator)
    tensors = value, locations, weights
    return [tensor.to(device, dtype).requires_grad_() for tensor in tensors]


def _attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    levels = SHAPES.to(value.device), STARTS.to(value.device)
    return MultiScaleDeformableAttnFunction.apply(value, *levels, locations, weights, 64)


def test_is_the_function_used_on_a_cpu(device: str) -> None:
    inputs = _inputs(device=device)
    expected = multi_scale_deformable_attn_pytorch(inputs[0], SHAPES, *inputs[1:])
    out = _attend(*inputs)
    torch.testing.assert_close(out, expected)
    grad = torch.rand_like(out)
    grads = torch.autograd.grad(out, inputs, grad)
    torch.testing.assert_close(grads, torch.autograd.grad(expected, inputs, grad))


def test_constant_values_come_back() -> None:
    _, locations, weights = _inputs()
    # Well inside every level, so that no sample mixes in the zeros around it.
    out = _attend(torch.full((2, 26, 2, 3), 1.5).double(), 0.3 + 0.4 * locations, weights)
    expected = 1.5 * weights.sum(dim=(3, 4))[..., None].expand(2, 4, 2, 3).flatten(2)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision_keeps_the_type(dtype: torch.dtype, device: str) -> None:
    inputs = _inputs(torch.float32, device)
    value = inputs[0].to(dtype)
    with torch.autocast(device, dtype=dtype):
        out = _attend(value, *inputs[1:])
    assert out.dtype == dtype
    expected = _attend(value.float(), *(tensor.to(dtype).float() for tensor in inputs[1:]))
    torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=2e-2)
    out.sum().backward()
    assert all(tensor.grad is not None for tensor in inputs)


def test_layer_on_this_device(device: str) -> None:
    layer = MultiScaleDeformableAttention(8, 2, num_levels=2, batch_first=True).to(device)
    query, points = torch.rand(1, 4, 8), torch.rand(1, 4, 2, 2)
    levels = {'spatial_shapes': SHAPES.to(device), 'level_start_index': STARTS.to(device)}
    out = layer(
        query.to(device),
        value=torch.rand(1, 26, 8).to(device),
        reference_points=points.to(device),
        **levels,
    )
    assert out.shape == (1, 4, 8)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
