"""The graphs of RetinaNet and of two-stage detectors: Faster, Mask and Cascade R-CNN."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        head = self.model.bbox_head
        padded = pad_to_multiple(images, self.model.data_preprocessor.pad_size_divisor)
        maps = head(self.model.extract_feat(self.cast(padded)))
        return detect(head, maps, self.model.test_cfg, images.shape[2:])


class TwoStageGraph(Graph):
    """Returns what `RetinaNetGraph` returns, and masks `(K, S, S)` if the model has a mask head.

    A mask holds, for each point of a grid over the box, the probability that the point lies on
    the object. The graph does not paste the masks into the image.

    Raises:
        ExportError: If the RoI head is of another kind than in these models.
    """

    task = 'detection'
    outputs: tuple[str, ...] = ('boxes', 'scores', 'labels')
    batched = False

    def __init__(self, model: nn.Module) -> None:
        from mmdet.models.roi_heads import CascadeRoIHead, SingleRoIExtractor, StandardRoIHead

        super().__init__(model)
        head = self.model.roi_head
        extractors = [each for each in head.modules() if hasattr(each, 'roi_layers')]
        is_plain = all(isinstance(each, SingleRoIExtractor) for each in extractors)
        forwards = (StandardRoIHead._bbox_forward, CascadeRoIHead._bbox_forward)
        if not is_plain or type(head)._bbox_forward not in forwards or head.with_shared_head:
            raise ExportError(
                f'model.roi_head is {type(head).__name__} with '
                f'{type(extractors[0]).__name__}, which cannot be exported; supported are '
                'StandardRoIHead and CascadeRoIHead with SingleRoIExtractor, without a shared head'
            )
        if head.with_mask:
            self.task, self.outputs = 'instance segmentation', (*self.outputs, 'masks')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[2:]
        cfg, head = self.model.test_cfg.rcnn, self.model.roi_head
        padded = pad_to_multiple(images, self.model.data_preprocessor.pad_size_divisor)
        maps = self.model.extract_feat(self.cast(padded))
        rpn = self.model.rpn_head
        rois, _, _ = detect(rpn, rpn(maps), self.model.test_cfg.rpn, (height, width), is_rpn=True)

        stages = [*zip(_listed(head.bbox_roi_extractor), _listed(head.bbox_head))]
        logits = []
        for number, (extractor, stage) in enumerate(stages, 1):
            scores, deltas = (each.float() for each in stage(_pool(extractor, maps, rois)))
            deltas = deltas.reshape(scores.shape[0], -1, 4)
            logits.append(scores)
            if number < len(stages):
                index = torch.arange(scores.shape[0], device=scores.device)
                labels = scores[:, :-1].argmax(dim=1)
                rois = _regress(stage, rois, deltas, index, labels, height, width)
        all_scores = (sum(logits) / len(logits)).softmax(dim=1)[:, :-1]
        kept = (all_scores > cfg.score_thr).nonzero()
        index, labels = kept[:, 0], kept[:, 1]
        scores = all_scores[index, labels]
        boxes = _regress(stage, rois, deltas, index, labels, height, width)

        kept = batched_nms(boxes, scores, labels, cfg.nms)[: cfg.max_per_img]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if not head.with_mask:
            return boxes, scores, labels
        masks = []
        for extractor, stage in zip(_listed(head.mask_roi_extractor), _listed(head.mask_head)):
            grids = stage(_pool(extractor, maps, boxes)).float().sigmoid()
            channels = torch.zeros_like(labels) if grids.shape[1] == 1 else labels
            channels = channels[:, None, None, None].expand(-1, 1, *grids.shape[2:])
            masks.append(grids.gather(1, channels).squeeze(1))
        return boxes, scores, labels, sum(masks) / len(masks)


def pad_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """Pad images with zeros on the right and at the bottom to a multiple of `divisor`."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % divisor, 0, -height % divisor))


def detect(
    head: Any, maps: Any, cfg: Any, size: Sequence[int], *, is_rpn: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode the predictions of an anchor head and run NMS, as mmdet does.

    Args:
        head: An anchor head of mmdet.
        maps: What the head returned for one image: scores and deltas, each a list over levels.
        cfg: The `test_cfg` of the head.
        size: Height and width of the image before padding; boxes are clipped to it.
        is_rpn: Whether to run NMS within levels, not classes, and without a lowest score.

    Returns:
        Boxes `(K, 4)` as corners in pixels; scores and labels `(K,)`, best first.
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
        limit = cfg.nms_pre
        index = scores.amax(dim=1).topk(min(limit, scores.shape[0])).indices
        best, pairs = scores[index].flatten().topk(min(limit, index.shape[0] * scores.shape[1]))
        index, labels = index[pairs // scores.shape[1]], pairs % scores.shape[1]
        boxes = clip(head.bbox_coder.decode(anchors[index], deltas[index]), *size)
        results.append((boxes, best, labels, torch.full_like(labels, level)))
    boxes, scores, labels, levels = map(torch.cat, zip(*results))
    valid = (boxes[:, 2:] - boxes[:, :2] > cfg.get('min_bbox_size', -1)).all(dim=1)
    kept = (valid if is_rpn else (scores > cfg.score_thr) & valid).nonzero().squeeze(1)
    boxes, scores, labels, levels = boxes[kept], scores[kept], labels[kept], levels[kept]
    kept = batched_nms(boxes, scores, levels if is_rpn else labels, cfg.nms)[: cfg.max_per_img]
    return boxes[kept], scores[kept], labels[kept]


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clip boxes `(K, 4)` to an image of `height` x `width` pixels.

    mmdet's box coder can clip, but during ONNX export it imports a module that mmdet 3 removed.
    """
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack([x, y], dim=2).flatten(1)


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


def _listed(parts: Any) -> list[Any]:
    """Return the parts of all stages; only cascades have several."""
    return [*parts] if isinstance(parts, nn.ModuleList) else [parts]


def _regress(
    head: Any, rois: Tensor, deltas: Tensor, index: Tensor, labels: Tensor, height: int, width: int
) -> Tensor:
    """Return the boxes `(K, 4)` of the chosen pairs of a region and a class."""
    columns = torch.zeros_like(labels) if head.reg_class_agnostic else labels
    return clip(head.bbox_coder.decode(rois[index], deltas[index, columns]), height, width)


def _pool(extractor: Any, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Pool each box `(K, 4)` from the level that matches its size, like SingleRoIExtractor."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    levels = extractor.map_roi_levels(rois, len(extractor.roi_layers))
    height, width = extractor.roi_layers[0].output_size
    pooled = rois.new_zeros(rois.shape[0], maps[0].shape[1], height, width)
    for level, (layer, features) in enumerate(zip(extractor.roi_layers, maps)):
        index = (levels == level).nonzero().squeeze(1)
        part = torch.ops.torchvision.roi_align(
            features.float(),
            rois[index],
            layer.spatial_scale,
            height,
            width,
            layer.sampling_ratio,
            layer.aligned,
        )
        pooled = pooled.index_put((index,), part)
    return pooled.to(maps[0].dtype)
