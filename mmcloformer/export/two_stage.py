"""The graph of Faster R-CNN, Mask R-CNN and Cascade R-CNN."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .detectors import batched_nms, clip, decode_best, larger_than, pad_to_multiple
from .graphs import ExportError, Graph


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
        rois = self._propose(maps, height, width)

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

    def _propose(self, maps: Sequence[Tensor], height: int, width: int) -> Tensor:
        """Return the boxes `(K, 4)` that the RPN proposes, in pixels."""
        cfg, head = self.model.test_cfg.rpn, self.model.rpn_head
        boxes, scores, _, levels = decode_best(head, head(maps), cfg.nms_pre, height, width)
        kept = larger_than(cfg.get('min_bbox_size', -1), boxes).nonzero().squeeze(1)
        boxes, scores, levels = boxes[kept], scores[kept], levels[kept]
        return boxes[batched_nms(boxes, scores, levels, cfg.nms)[: cfg.max_per_img]]


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
