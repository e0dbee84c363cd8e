"""The graphs of RetinaNet and of two-stage detectors: Faster, Mask and Cascade R-CNN."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import join_first
from .graphs import ExportError, Graph, pad

# Options of mmcv's `nms` within groups that the graphs follow. For more boxes than `split_thr` it
# runs class by class, which changes only what is `class_agnostic`.
_NMS_OPTIONS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
_SPLIT_THR = 10_000  # its default
# What the graphs reimplement of heads: of all, and of those on feature maps.
_HEAD = ('predict_by_feat', '_predict_by_feat_single')
_DENSE_HEAD = (*_HEAD, '_bbox_post_process')


class RetinaNetGraph(Graph):
    """Returns boxes `(K, 4)`, scores `(K,)` and labels `(K,)` of one image, best first.

    Boxes are corners x1, y1, x2, y2 in pixels of the input. As mmdet does, the graph pads the
    image to a multiple of the config's `pad_size_divisor` and clips boxes to the unpadded image.

    Raises:
        ExportError: If the head predicts in another way.
    """

    task = 'detection'
    outputs = ('boxes', 'scores', 'labels')
    batched = False

    def __init__(self, model: nn.Module) -> None:
        from mmdet.models.dense_heads import RetinaHead, RetinaSepBNHead

        super().__init__(model)
        head = self.model.bbox_head
        _require(head, 'bbox_head', (RetinaHead, RetinaSepBNHead), *_DENSE_HEAD)
        _require_plain_boxes(head, 'bbox_head')
        _require_plain_nms(self.model.test_cfg, 'test_cfg')
        if self.model.test_cfg.get('min_bbox_size', -1) > 0:
            raise ExportError(
                'model.test_cfg.min_bbox_size is in pixels of the original image, which an '
                'exported graph does not know: remove it'
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head = self.model.bbox_head
        padded = pad(images, self.model.data_preprocessor)
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
        from mmcv.ops import RoIAlign
        from mmdet.models.dense_heads import RPNHead
        from mmdet.models.roi_heads import (
            BBoxHead,
            CascadeRoIHead,
            FCNMaskHead,
            SingleRoIExtractor,
            StandardRoIHead,
        )

        super().__init__(model)
        head = self.model.roi_head
        methods = ('_bbox_forward', 'predict_bbox', *(['predict_mask'] if head.with_mask else []))
        _require(head, 'roi_head', (StandardRoIHead, CascadeRoIHead), *methods)
        if head.with_shared_head:
            raise ExportError('model.roi_head has a shared_head, which cannot be exported')
        _require(self.model.rpn_head, 'rpn_head', (RPNHead,), *_DENSE_HEAD)
        _require_plain_boxes(self.model.rpn_head, 'rpn_head')
        for part in ('rpn', 'rcnn'):
            _require_plain_nms(self.model.test_cfg[part], f'test_cfg.{part}')
        for each in _listed(head.bbox_head):
            _require(each, 'roi_head.bbox_head', (BBoxHead,), *_HEAD, 'regress_by_class')
            _require_plain_boxes(each, 'roi_head.bbox_head')
            if not each.with_reg:
                raise ExportError(
                    'model.roi_head.bbox_head has no with_reg, which cannot be exported'
                )
        for each in _listed(head.mask_head) if head.with_mask else ():
            _require(each, 'roi_head.mask_head', (FCNMaskHead,), *_HEAD)
        for name, each in head.named_modules():
            if hasattr(each, 'roi_layers'):
                layer, methods = each.roi_layers[0], ('forward', 'map_roi_levels')
                _require(each, f'roi_head.{name}', (SingleRoIExtractor,), *methods)
                _require(layer, f'roi_head.{name}.roi_layer', (RoIAlign,), 'forward')
                if layer.pool_mode != 'avg':
                    raise ExportError("RoIAlign with pool_mode='max' cannot be exported")
        if head.with_mask and head.test_cfg.mask_thr_binary != 0.5:
            raise ExportError(
                f'model.test_cfg.rcnn.mask_thr_binary is {head.test_cfg.mask_thr_binary}, but the '
                'probabilities of exported masks are compared with 0.5: set it to 0.5'
            )
        if head.with_mask:
            self.task, self.outputs = 'instance segmentation', (*self.outputs, 'masks')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[2:]
        cfg, head = self.model.test_cfg.rcnn, self.model.roi_head
        padded = pad(images, self.model.data_preprocessor)
        maps = self.model.extract_feat(self.cast(padded))
        rpn = self.model.rpn_head
        rois, _, _ = detect(rpn, rpn(maps), self.model.test_cfg.rpn, (height, width), is_rpn=True)

        stages = [*zip(_listed(head.bbox_roi_extractor), _listed(head.bbox_head))]
        logits = []
        for number, (extractor, stage) in enumerate(stages, 1):
            scores, deltas = (each.float() for each in stage(_pool(extractor, maps, rois)))
            deltas = deltas.unflatten(1, (-1, 4))
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

        kept = batched_nms(boxes, scores, labels, cfg.nms)
        kept = kept[: cfg.max_per_img] if cfg.max_per_img > 0 else kept
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
    nms_pre = cfg.get('nms_pre', -1)
    results = []
    for level, (scores, deltas, anchors) in enumerate(zip(*maps, priors)):
        scores = scores[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels).float()
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4).float()
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(dim=1)[:, :-1]
        # The best (anchor, class) pairs belong to the best anchors. Two small searches are
        # faster than one over all pairs.
        limit = nms_pre if nms_pre > 0 else scores.numel()
        index = scores.amax(dim=1).topk(min(limit, scores.shape[0])).indices
        best, pairs = scores[index].flatten().topk(min(limit, index.shape[0] * scores.shape[1]))
        index, labels = index[pairs // scores.shape[1]], pairs % scores.shape[1]
        boxes = decode(head.bbox_coder, anchors[index], deltas[index], size)
        valid = torch.ones_like(labels, dtype=torch.bool)
        if (min_size := cfg.get('min_bbox_size', -1)) >= 0:
            valid = (boxes[:, 2:] - boxes[:, :2] > min_size).all(dim=1)
        if not is_rpn:
            above = best > cfg.get('score_thr', 0)
            if nms_pre < 0:  # mmdet cuts its sorted list at [:nms_pre]: -1 drops the last one.
                ranks = torch.arange(best.shape[0], device=best.device)
                above &= ranks < above.sum() + nms_pre
            valid &= above
        results.append((boxes, best, labels, torch.full_like(labels, level), valid))
    boxes, scores, labels, levels, valid = map(torch.cat, zip(*results))
    kept = valid.nonzero().squeeze(1)
    boxes, scores, labels, levels = boxes[kept], scores[kept], labels[kept], levels[kept]
    kept = batched_nms(boxes, scores, levels if is_rpn else labels, cfg.nms)[: cfg.max_per_img]
    return boxes[kept], scores[kept], labels[kept]


def decode(coder: Any, boxes: Tensor, deltas: Tensor, size: Sequence[int]) -> Tensor:
    """Move boxes `(K, 4)` by deltas, and clip them to an image if the coder does.

    mmdet's box coder can clip, but during ONNX export it imports a module that mmdet 3 removed.

    Args:
        coder: A box coder of mmdet.
        boxes: Corners in pixels.
        deltas: What a head predicts for each box.
        size: Height and width of the image.
    """
    boxes = coder.decode(boxes, deltas)
    if not coder.clip_border:
        return boxes
    x, y = boxes[:, 0::2].clamp(0, size[1]), boxes[:, 1::2].clamp(0, size[0])
    return torch.stack([x, y], dim=2).flatten(1)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Any) -> Tensor:
    """Run NMS within each group, or over all boxes, as mmcv's `batched_nms` does.

    Args:
        boxes: Corners in pixels, `(K, 4)`.
        scores: Scores, `(K,)`.
        groups: Group of each box, `(K,)`: its label or its level.
        cfg: The `nms` field of a `test_cfg`.

    Returns:
        Indices of the boxes that remain, best first.
    """
    threshold = cfg['iou_threshold']
    if cfg.get('class_agnostic'):
        return torch.ops.torchvision.nms(boxes, scores, threshold)
    # An offset per group moves boxes of different groups apart. Padding with an empty box keeps
    # max() defined when there are no boxes.
    offsets = groups.to(boxes) * (F.pad(boxes, (0, 0, 0, 1)).max() + 1)
    return torch.ops.torchvision.nms(boxes + offsets[:, None], scores, threshold)


def _require(part: Any, field: str, kinds: tuple[type, ...], *methods: str) -> None:
    """Refuse a part of none of these classes, or with own versions of what a graph reimplements."""
    for kind in kinds:
        if isinstance(part, kind) and all(
            getattr(type(part), name) is getattr(kind, name) for name in methods
        ):
            return
    raise ExportError(
        f'model.{field} is {type(part).__name__}, which cannot be exported; supported are '
        f'{join_first([kind.__name__ for kind in kinds])} and classes that predict as they do'
    )


def _require_plain_nms(test_cfg: Any, field: str) -> None:
    """Refuse anything but the plain NMS of `batched_nms`."""
    from mmcv.ops import nms

    cfg = dict(test_cfg.get('nms') or {})
    is_plain = cfg.get('type', 'nms') in ('nms', nms) and 'iou_threshold' in cfg
    is_split = cfg.get('class_agnostic') and cfg.get('split_thr', _SPLIT_THR) < _SPLIT_THR
    if not is_plain or is_split or cfg.keys() - _NMS_OPTIONS:
        raise ExportError(
            f'model.{field}.nms is {cfg}, and only plain NMS can be exported: set it to '
            "dict(type='nms', iou_threshold=...), class_agnostic=True may be added"
        )


def _require_plain_boxes(head: Any, field: str) -> None:
    """Refuse a head with another box coder, or whose loss computes the scores."""
    from mmdet.models.task_modules import DeltaXYWHBBoxCoder, TBLRBBoxCoder

    _require(head.bbox_coder, f'{field}.bbox_coder', (DeltaXYWHBBoxCoder, TBLRBBoxCoder), 'decode')
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise ExportError(
            f'model.{field}.loss_cls is {type(head.loss_cls).__name__}, which computes the '
            'scores itself and cannot be exported'
        )


def _listed(parts: Any) -> list[Any]:
    """Return the parts of all stages; only cascades have several."""
    return [*parts] if isinstance(parts, nn.ModuleList) else [parts]


def _regress(
    head: Any, rois: Tensor, deltas: Tensor, index: Tensor, labels: Tensor, height: int, width: int
) -> Tensor:
    """Return the boxes `(K, 4)` of the chosen pairs of a region and a class."""
    columns = torch.zeros_like(labels) if head.reg_class_agnostic else labels
    return decode(head.bbox_coder, rois[index], deltas[index, columns], (height, width))


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
