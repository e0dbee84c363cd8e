"""The graph of RetinaNet, and the steps after the heads that it shares with two-stage detectors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .graphs import ExportError, Graph


class RetinaNetGraph(Graph):
    """Returns boxes `(K, 4)`, scores `(K,)` and labels `(K,)` of one image, best first.

    Boxes are corners x1, y1, x2, y2 in pixels of the input. As mmdet does, the graph pads the
    image to a multiple of the config's `pad_size_divisor` and clips boxes to the unpadded image.
    """

    task = 'detection'
    outputs = ('boxes', 'scores', 'labels')
    batched = False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cfg, head = self.model.test_cfg, self.model.bbox_head
        padded = pad_to_multiple(images, self.model.data_preprocessor.pad_size_divisor)
        maps = head(self.model.extract_feat(self.cast(padded)))
        height, width = images.shape[2:]
        boxes, scores, labels, _ = decode_best(head, maps, cfg.nms_pre, height, width)
        valid = (scores > cfg.score_thr) & larger_than(cfg.get('min_bbox_size', -1), boxes)
        kept = valid.nonzero().squeeze(1)
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        kept = batched_nms(boxes, scores, labels, cfg.nms)[: cfg.max_per_img]
        return boxes[kept], scores[kept], labels[kept]


def pad_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """Pad images with zeros on the right and at the bottom to a multiple of `divisor`."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % divisor, 0, -height % divisor))


def decode_best(
    head: Any, maps: Any, limit: int, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decode the predictions with the highest scores of each level, as mmdet does before NMS.

    Args:
        head: An anchor head of mmdet.
        maps: What the head returned for one image: scores and deltas, each a list over levels.
        limit: Maximum number of predictions per level.
        height: Height of the image before padding, in pixels; boxes are clipped to it.
        width: Width of the image before padding, in pixels.

    Returns:
        Boxes `(K, 4)` as corners in pixels; scores, labels and levels `(K,)`.
    """
    sizes = [scores.shape[2:] for scores in maps[0]]
    priors = head.prior_generator.grid_priors(sizes, device=maps[0][0].device)
    results = []
    for level, (scores, deltas, anchors) in enumerate(zip(*maps, priors)):
        scores = scores[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels).float()
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4).float()
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(dim=1)[:, :-1]
        # The best (anchor, class) pairs belong to the best anchors. Two small searches are
        # faster than one over all pairs.
        index = scores.amax(dim=1).topk(min(limit, scores.shape[0])).indices
        best, pairs = scores[index].flatten().topk(min(limit, index.shape[0] * scores.shape[1]))
        index, labels = index[pairs // scores.shape[1]], pairs % scores.shape[1]
        boxes = clip(head.bbox_coder.decode(anchors[index], deltas[index]), height, width)
        results.append((boxes, best, labels, torch.full_like(labels, level)))
    boxes, best, labels, levels = map(torch.cat, zip(*results))
    return boxes, best, labels, levels


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clip boxes `(K, 4)` to an image of `height` x `width` pixels.

    mmdet's box coder can clip, but during ONNX export it imports a module that mmdet 3 removed.
    """
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack([x, y], dim=2).flatten(1)


def larger_than(side: float, boxes: Tensor) -> Tensor:
    """Return which of the boxes `(K, 4)` have both sides larger than `side` pixels, `(K,)`."""
    return (boxes[:, 2:] - boxes[:, :2] > side).all(dim=1)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Any) -> Tensor:
    """Run NMS within each group, as mmcv's `batched_nms` does.

    Args:
        boxes: Corners in pixels, `(K, 4)`.
        scores: Scores, `(K,)`.
        groups: Group of each box, `(K,)`: its label or its level.
        cfg: The `nms` field of a `test_cfg`.

    Returns:
        Indices of the boxes that remain, best first.

    Raises:
        ExportError: If the config asks for anything but plain NMS within groups.
    """
    if cfg.get('type', 'nms') != 'nms' or cfg.get('class_agnostic'):
        raise ExportError(
            f'test_cfg.nms is {dict(cfg)}, and only plain NMS per class can be exported: set it to '
            "dict(type='nms', iou_threshold=...)"
        )
    # An offset per group moves boxes of different groups apart. Padding with an empty box keeps
    # max() defined when there are no boxes.
    offsets = groups.to(boxes) * (F.pad(boxes, (0, 0, 0, 1)).max() + 1)
    return torch.ops.torchvision.nms(boxes + offsets[:, None], scores, cfg.iou_threshold)
