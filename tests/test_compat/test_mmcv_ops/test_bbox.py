"""Overlaps of boxes through mmcv's own function, against one pair at a time."""

import sys

import numpy as np
import pytest
import torch
from mmcv.ops import bbox_overlaps
from torch import Tensor


def _boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 30
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 25], dim=1)


def _overlap(a: np.ndarray, b: np.ndarray, mode: str, offset: int) -> float:
    shared = 1.0
    for low, high in ((0, 2), (1, 3)):
        shared *= max(0.0, min(a[high], b[high]) - max(a[low], b[low]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return shared / (sum(areas) - shared if mode == 'iou' else areas[0])


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
def test_pairs(mode: str, offset: int, device: str) -> None:
    first, second = _boxes(9, seed=0), _boxes(7, seed=1)
    expected = [[_overlap(a, b, mode, offset) for b in second.numpy()] for a in first.numpy()]
    found = bbox_overlaps(first.to(device), second.to(device), mode, offset=offset)
    torch.testing.assert_close(found.cpu(), torch.tensor(expected))
    assert 0 < (found == 0).sum() < found.numel()
    aligned = bbox_overlaps(first[:7].to(device), second.to(device), mode, True, offset)
    torch.testing.assert_close(aligned, found[:7].diag())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype: torch.dtype) -> None:
    first, second = _boxes(9, seed=0).to(dtype), _boxes(7, seed=1).to(dtype)
    expected = bbox_overlaps(first.double(), second.double())
    found = bbox_overlaps(first, second)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected.to(dtype))


def test_boxes_without_area() -> None:
    # As mmcv's kernels: 0 / 0 is NaN; with an offset of 1 such a box is one pixel.
    point = torch.tensor([[3.0, 1, 3, 1]])
    assert bbox_overlaps(point, point).isnan().all()
    assert bbox_overlaps(point, point, offset=1).item() == 1


def test_writes_into_the_given_tensor() -> None:
    ious = torch.full((2, 3), -1.0)
    boxes = _boxes(3, seed=0), _boxes(2, seed=1)
    operator = sys.modules['mmcv._ext'].bbox_overlaps
    assert operator(boxes[1], boxes[0], ious, mode=0, aligned=False, offset=0) is None
    assert torch.equal(ious, bbox_overlaps(boxes[1], boxes[0]))
