"""Non-maximum suppression: hard by torchvision's kernel, soft in torch."""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from .standin import at_least_float32

_NAIVE, _LINEAR = 0, 1


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Remove every box that overlaps one with a higher score.

    Args:
        boxes: (N, 4), corners x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: A box is removed if its IoU with a kept one is greater.
        offset: Added to x2 - x1 and y2 - y1 for width and height: 1 if the corners are the first
            and the last pixel, 0 if they are edges.

    Returns:
        Indices of the kept boxes, highest score first.
    """
    boxes, scores = at_least_float32(boxes, scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares in float32: an IoU of exactly 0.6 is not greater than 0.6.
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    return torch.ops.torchvision.nms(boxes, scores, threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the score of every box that overlaps one with a higher score (arXiv 1704.04503).

    Args:
        boxes: (N, 4), corners x1, y1, x2, y2.
        scores: (N,).
        dets: (N, 5), overwritten: corners and new score, one row per kept box.
        iou_threshold: The naive and the linear method lower scores from this IoU on.
        sigma: Width of the Gaussian method.
        min_score: A box is removed once its score is lower.
        method: Factor of the score: 0 (naive), zero; 1 (linear), 1 - IoU; 2 (Gaussian),
            exp(-IoU ** 2 / sigma).
        offset: As for `nms`.

    Returns:
        Indices of the kept boxes in the order of `dets`, by decreasing new score.
    """
    boxes, scores = at_least_float32(boxes, scores)
    scores = scores.clone()
    rest = torch.arange(len(boxes), device=boxes.device)
    kept: list[Tensor] = []
    while len(rest):
        first = scores[rest].argmax()
        best = rest[first].clone()
        dets[len(kept), :4] = boxes[best]
        dets[len(kept), 4] = scores[best]
        kept.append(best)
        # These moves, and those of _drop, are mmcv's: they decide the order of equal scores.
        rest[first] = rest[0]
        rest = rest[1:]
        overlap = _iou(boxes[best], boxes[rest], offset)
        scores[rest] *= _decay(overlap, iou_threshold, sigma, method)
        rest = _drop(rest, scores[rest] < min_score)
    return torch.stack(kept) if kept else rest


def _iou(box: Tensor, others: Tensor, offset: int) -> Tensor:
    corner = torch.maximum(box[:2], others[:, :2])
    shared = (torch.minimum(box[2:], others[:, 2:]) - corner + offset).clamp(min=0).prod(dim=1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (others[:, 2:] - others[:, :2] + offset).prod(dim=1)
    # Two boxes without area give 0 / 0; in mmcv their scores become NaN (Gaussian method).
    return (shared / (area + areas - shared)).nan_to_num(nan=0.0)


def _decay(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    if method == _NAIVE:
        return (overlap < iou_threshold).to(overlap.dtype)
    if method == _LINEAR:
        return torch.where(overlap < iou_threshold, 1.0, 1 - overlap)
    return torch.exp(-(overlap**2) / sigma)


def _drop(rest: Tensor, dropped: Tensor) -> Tensor:
    count = len(rest) - int(dropped.sum())
    last_first = rest[count:][~dropped[count:]].flip(0)
    rest = rest[:count].clone()
    rest[dropped[:count]] = last_first
    return rest
