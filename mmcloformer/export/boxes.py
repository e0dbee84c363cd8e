"""What detectors of one and of two stages share after their heads."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .graph import ExportError


def pad_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """Pad images on the right and below with zeros, as the host's data preprocessor does."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % divisor, 0, -height % divisor))


def best_of_levels(
    head: Any, maps: Any, limit: int, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decode of each level as many anchors as the host takes into NMS, those of highest score.

    Args:
        head: An anchor head of mmdet.
        maps: What it returned for one image: scores and deltas by level.
        limit: The most of a level.
        height: Of the image before padding, in pixels; boxes are clipped to it.
        width: Likewise.

    Returns:
        Boxes `(K, 4)`, corners in pixels; scores, labels and levels `(K,)`.
    """
    sizes = [scores.shape[2:] for scores in maps[0]]
    priors = head.prior_generator.grid_priors(sizes, device=maps[0][0].device)
    levels = []
    for level, (scores, deltas, anchors) in enumerate(zip(*maps, priors)):
        scores = scores[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels).float()
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4).float()
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(dim=1)[:, :-1]
        # The best pairs of anchor and class are pairs of the best anchors: two small searches.
        index = scores.amax(dim=1).topk(min(limit, scores.shape[0])).indices
        best, pairs = scores[index].flatten().topk(min(limit, index.shape[0] * scores.shape[1]))
        index, labels = index[pairs // scores.shape[1]], pairs % scores.shape[1]
        boxes = clip(head.bbox_coder.decode(anchors[index], deltas[index]), height, width)
        levels.append((boxes, best, labels, torch.full_like(labels, level)))
    boxes, best, labels, numbers = map(torch.cat, zip(*levels))
    return boxes, best, labels, numbers


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clip boxes `(K, 4)` to an image, all in pixels.

    The host's coder can, but not while ONNX is exported: it then imports what mmdet 3 dropped.
    """
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack([x, y], dim=2).flatten(1)


def larger_than(side: float, boxes: Tensor) -> Tensor:
    """Which boxes `(K, 4)` are wider and higher, in pixels."""
    return (boxes[:, 2:] - boxes[:, :2] > side).all(dim=1)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Any) -> Tensor:
    """Suppress boxes within their groups, which offsets keep apart as in mmcv's `batched_nms`.

    Args:
        boxes: `(K, 4)`.
        scores: `(K,)`.
        groups: `(K,)`.
        cfg: `nms` of a `test_cfg`.

    Returns:
        Indices of the boxes that stay, best first.

    Raises:
        ExportError: If it is another NMS than the plain one.
    """
    if cfg.get('type', 'nms') != 'nms' or cfg.get('class_agnostic'):
        raise ExportError(f'only plain NMS by class can be exported, not {dict(cfg)}')
    # A box of no area ensures that there is a largest coordinate.
    offsets = groups.to(boxes) * (F.pad(boxes, (0, 0, 0, 1)).max() + 1)
    return torch.ops.torchvision.nms(boxes + offsets[:, None], scores, cfg.iou_threshold)
