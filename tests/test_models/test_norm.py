import pytest
import torch
from torch.nn import functional as F

from mmcloformer.models.norm import LayerNorm2d

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def norm_and_map(affine, layout, shape=(2, 12, 9, 7)):
    torch.manual_seed(0)
    norm = LayerNorm2d(shape[1], affine)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter, 1)
    x = (3 + 2 * torch.randn(shape)).contiguous(memory_format=layout)
    return norm, x


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_split_is_groupnorm_in_values_layout_and_gradients(affine, layout):
    """The way that GPUs take, on the CPU."""
    norm, x = norm_and_map(affine, layout)
    upstream = torch.randn_like(x)
    results = []
    for function in (
        norm.split,
        lambda x: F.group_norm(x, 1, norm.weight, norm.bias, norm.eps),
    ):
        leaf = x.clone().requires_grad_()
        out = function(leaf)
        assert out.is_contiguous(memory_format=layout)
        wanted = [leaf, *norm.parameters()]
        results.append([out, *torch.autograd.grad(out, wanted, upstream)])
    for ours, stock in zip(*results, strict=True):
        torch.testing.assert_close(ours, stock, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_split_of_half_precision_does_not_overflow(dtype):
    norm, x = norm_and_map(True, torch.channels_last)
    x = (1000 * x).to(dtype)
    out = norm.to(dtype).split(x)
    assert out.dtype == dtype
    expected = F.group_norm(x.float(), 1, norm.weight.float(), norm.bias.float(), norm.eps)
    torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=4e-2)


def test_behind_frozen_layers_its_weights_still_learn():
    norm, x = norm_and_map(True, torch.channels_last)
    norm(x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in norm.parameters())
