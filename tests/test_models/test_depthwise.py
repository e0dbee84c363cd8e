"""The weight gradient of DepthwiseConv2d is that of Conv2d, for every way to differentiate."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.utils._pytree import tree_leaves

from mmcloformer.models import depthwise
from mmcloformer.models.depthwise import DepthwiseConv2d


def loss(weights, x, conv):
    return functional_call(conv, weights, (x,)).pow(3).sum()


def second_derivative(weights, x, conv):
    (slope,) = torch.autograd.grad(loss(weights, x, conv), weights['weight'], create_graph=True)
    return torch.autograd.grad(slope.square().sum(), [*weights.values(), x])


def along_a_direction(weights, x, conv):
    """Forward mode over the gradient, where the weight is both dual and differentiated."""
    direction = {name: torch.ones_like(weight) for name, weight in weights.items()}
    return jvp(lambda w: grad(loss)(w, x, conv), (weights,), (direction,))


DERIVATIVES = {
    'gradient': grad(loss, (0, 1)),
    'per sample': lambda weights, x, conv: vmap(grad(loss), (None, 0, None))(
        weights, x[:, None], conv
    ),
    'second': second_derivative,
    'forward over reverse': along_a_direction,
}


@pytest.mark.parametrize('derivative', DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.parametrize(('kernel', 'stride'), [(5, 1), (5, 2), (7, 1)])
def test_derivatives_are_those_of_conv2d(derivative, kernel, stride, monkeypatch):
    torch.manual_seed(0)
    conv = DepthwiseConv2d(4, kernel, stride)
    plain = nn.Conv2d(4, 4, kernel, stride, padding=kernel // 2, groups=4)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(3, 4, 9, 11, requires_grad=True)
    expected = tree_leaves(derivative(dict(plain.named_parameters()), x, plain))
    for chunk in (100, 1000, 10**6):  # Strips of an image, single images, and all at once.
        monkeypatch.setattr(depthwise, 'CHUNK', chunk)
        found = tree_leaves(derivative(dict(conv.named_parameters()), x, conv))
        for value, reference in zip(found, expected, strict=True):
            assert (value - reference).norm() <= 1e-5 * reference.norm()


def test_an_empty_batch_has_a_gradient_of_zero():
    conv = DepthwiseConv2d(4, 5)
    conv(torch.randn(0, 4, 8, 8)).sum().backward()
    assert not conv.weight.grad.any()


def way(conv, x):
    return type(conv(x).grad_fn).__name__


def test_only_training_in_float32_with_large_filters_takes_its_own_way():
    x = torch.randn(1, 4, 8, 8)
    own = way(DepthwiseConv2d(4, 5), x)
    assert own.startswith('_DepthwiseConv')
    assert way(DepthwiseConv2d(4, 3), x) != own
    assert way(DepthwiseConv2d(4, 5).double(), x.double()) != own
    assert way(DepthwiseConv2d(4, 5).requires_grad_(False), x.clone().requires_grad_()) != own
    with torch.autocast('cpu', torch.bfloat16):
        assert way(DepthwiseConv2d(4, 5), x) != own
    with torch.no_grad():
        assert way(DepthwiseConv2d(4, 5), x) == 'NoneType'
