"""Overlaps of boxes in plain torch."""

import torch
from torch import Tensor

from .standin import at_least_float32

_IOU = 0


def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Compute the overlap of every pair of boxes, or of the boxes in equal places.

    Args:
        bboxes1: (M, 4), corners x1, y1, x2, y2.
        bboxes2: (N, 4).
        ious: (M, N), or (M,) with `aligned`; overwritten. NaN where both areas are 0.
        mode: Denominator of the shared area: 0 (iou), the area of the union; 1 (iof), the area of
            the box in `bboxes1`.
        aligned: Whether to compare box i only with box i; M and N are then equal.
        offset: Added to x2 - x1 and y2 - y1 for width and height: 1 if the corners are the first
            and the last pixel, 0 if they are edges.
    """
    first, second = at_least_float32(bboxes1, bboxes2)
    if not aligned:
        first = first[:, None]
    corner = torch.maximum(first[..., :2], second[..., :2])
    size = torch.minimum(first[..., 2:], second[..., 2:]) - corner + offset
    shared = size.clamp(min=0).prod(dim=-1)
    total = _area(first, offset)
    if mode == _IOU:
        total = total + _area(second, offset) - shared
    ious.copy_(shared / total)


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] + offset).prod(dim=-1)
