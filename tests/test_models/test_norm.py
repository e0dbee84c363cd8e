import pytest
import torch
from torch.nn import functional as F

from mmcloformer.models.norm import GroupNorm1

# What a GPU runs for small and for large maps.
WAYS = ['normalize_by_layer_norm', 'normalize_by_reduction']
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def norm_and_map(affine, layout, shape=(2, 12, 9, 7)):
    torch.manual_seed(0)
    norm = GroupNorm1(shape[1])
    if not affine:
        norm.fold_affine([])
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter, 1)
    x = (3 + 2 * torch.randn(shape)).contiguous(memory_format=layout)
    return norm, x


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('way', WAYS)
def test_ways_of_gpus_are_groupnorm_in_values_layout_and_gradients(affine, layout, way):
    norm, x = norm_and_map(affine, layout)
    upstream = torch.randn_like(x)
    results = []
    for function in (
        getattr(norm, way),
        lambda x: F.group_norm(x, 1, norm.weight, norm.bias, norm.eps),
    ):
        leaf = x.clone().requires_grad_()
        out = function(leaf)
        assert out.is_contiguous(memory_format=layout)
        wanted = [leaf, *norm.parameters()]
        results.append([out, *torch.autograd.grad(out, wanted, upstream)])
    for ours, stock in zip(*results, strict=True):
        torch.testing.assert_close(ours, stock, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype, way):
    norm, x = norm_and_map(True, torch.channels_last)
    x = (1000 * x).to(dtype)
    out = getattr(norm.to(dtype), way)(x)
    assert out.dtype == dtype
    expected = F.group_norm(x.float(), 1, norm.weight.float(), norm.bias.float(), norm.eps)
    torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=4e-2)


def test_behind_frozen_layers_its_weights_still_learn():
    norm, x = norm_and_map(True, torch.channels_last)
    norm(x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in norm.parameters())


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('affine_only', [True, False])
def test_float64_is_computed_in_float64(layout, affine_only):
    norm, x = norm_and_map(True, layout, shape=(2, 6, 4, 5))
    norm, x = norm.double(), x.double()
    exact = F.group_norm(x, 1, norm.weight, norm.bias, norm.eps)
    for out in (norm(x), *(getattr(norm, way)(x) for way in WAYS)):
        assert out.dtype == torch.double
        torch.testing.assert_close(out, exact, rtol=1e-12, atol=1e-12)
    inputs = (norm.weight, norm.bias) if affine_only else (x.requires_grad_(),)
    for function in (norm, *(getattr(norm, way) for way in WAYS)):
        assert torch.autograd.gradcheck(lambda *_: function(x), inputs)  # noqa: B023
        assert torch.autograd.gradgradcheck(lambda *_: function(x), inputs)  # noqa: B023


@pytest.mark.parametrize('learns', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_dtype_of_the_input(dtype, learns):
    norm, x = norm_and_map(True, torch.channels_last)
    with torch.set_grad_enabled(learns), torch.autocast('cpu', torch.bfloat16):
        assert norm(x.to(dtype)).dtype == dtype
        for way in WAYS:
            assert getattr(norm, way)(x.to(dtype)).dtype == dtype
