"""Focal loss through mmcv's own function, against mmdet's formula in plain torch."""

import pytest
import torch
from mmcv.ops import sigmoid_focal_loss
from mmdet.models.losses import focal_loss as mmdet_losses
from torch import Tensor
from torch.nn import functional

CLASSES = 5


def _batch(scale: float = 3.0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(40, CLASSES, generator=generator)
    target = torch.randint(0, CLASSES + 1, (40,), generator=generator)
    assert CLASSES in target
    return logits.to(dtype), target


def _one_hot(target: Tensor) -> Tensor:
    return functional.one_hot(target, CLASSES + 1)[:, :CLASSES]


@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
@pytest.mark.parametrize('weights', [None, 'rows', 'elements'])
@pytest.mark.parametrize('avg_factor', [None, 7.0])
def test_agrees_with_mmdet(
    gamma: float, alpha: float, weights: str | None, avg_factor: float | None, device: str
) -> None:
    logits, target = (tensor.to(device) for tensor in _batch())
    weight = {None: None, 'rows': torch.rand(40), 'elements': torch.rand(40, CLASSES)}[weights]
    options = {
        'weight': None if weight is None else weight.to(device),
        'gamma': gamma,
        'alpha': alpha,
        'avg_factor': avg_factor,
    }
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    loss = mmdet_losses.sigmoid_focal_loss(ours, target, **options)
    expected = mmdet_losses.py_sigmoid_focal_loss(theirs, _one_hot(target), **options)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits(dtype: torch.dtype, device: str) -> None:
    logits = torch.tensor([[3e4, -3e4], [200, -200], [0, 0]], dtype=dtype, device=device)
    logits.requires_grad_()
    wrong = torch.tensor([1, 1, 1], device=device)
    loss = sigmoid_focal_loss(logits, wrong, 2.0, 0.25, None, 'none')
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    # Confident and wrong: the loss is linear in the logit, with slopes 3/4 and 1/4.
    expected = torch.tensor([[22500.0, 7500], [150, 50]], dtype=dtype, device=device)
    torch.testing.assert_close(loss[:2], expected)
    slope = torch.tensor([[0.75, -0.25]] * 2, dtype=dtype, device=device)
    torch.testing.assert_close(logits.grad[:2], slope)
    right = torch.tensor([0, 0, 0], device=device)
    assert not sigmoid_focal_loss(logits, right, 2.0, 0.25, None, 'none')[:2].any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_the_rounded_loss(dtype: torch.dtype) -> None:
    logits, target = _batch(dtype=dtype)
    wide = sigmoid_focal_loss(logits.float(), target, 2.0, 0.25, None, 'none')
    narrow = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    assert torch.equal(narrow, wide.to(dtype))


def test_class_factors_scale_the_rows_of_their_class() -> None:
    logits, target = _batch()
    factors = torch.arange(2.0, 2 + CLASSES)
    plain = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    scaled = sigmoid_focal_loss(logits, target, 2.0, 0.25, factors, 'none')
    rows = torch.cat([factors, torch.ones(1)])[target]
    torch.testing.assert_close(scaled, rows[:, None] * plain)


def test_no_rows() -> None:
    logits = torch.zeros(0, CLASSES, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
