"""The graph of Mask R-CNN."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .detectors import batched_nms, clip, decode_best, larger_than, pad_to_multiple
from .graphs import Graph


class MaskRCNNGraph(Graph):
    """Returns what `RetinaNetGraph` returns, and masks `(K, S, S)` of the instances.

    A mask holds, for each point of a grid over the box, the probability that the point lies on
    the object. The graph does not paste the masks into the image.
    """

    task = 'instance segmentation'
    outputs = ('boxes', 'scores', 'labels', 'masks')
    batched = False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        height, width = images.shape[2:]
        cfg, head = self.model.test_cfg.rcnn, self.model.roi_head
        padded = pad_to_multiple(images, self.model.data_preprocessor.pad_size_divisor)
        maps = self.model.extract_feat(self.cast(padded))
        rois = self._propose(maps, height, width)

        pooled = _pool_regions(head.bbox_roi_extractor, maps, rois)
        logits, deltas = head.bbox_head(pooled)
        all_scores = logits.float().softmax(dim=1)[:, :-1]
        kept = (all_scores > cfg.score_thr).nonzero()
        index, labels = kept[:, 0], kept[:, 1]
        scores = all_scores[index, labels]
        deltas = deltas.float().reshape(logits.shape[0], -1, 4)[index, labels]
        boxes = clip(head.bbox_head.bbox_coder.decode(rois[index], deltas), height, width)

        kept = batched_nms(boxes, scores, labels, cfg.nms)[: cfg.max_per_img]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        pooled = _pool_regions(head.mask_roi_extractor, maps, boxes)
        masks = head.mask_head(pooled).float().sigmoid()
        masks = masks.gather(1, labels[:, None, None, None].expand(-1, 1, *masks.shape[2:]))
        return boxes, scores, labels, masks.squeeze(1)

    def _propose(self, maps: Sequence[Tensor], height: int, width: int) -> Tensor:
        """Return the boxes `(K, 4)` that the RPN proposes, in pixels."""
        cfg, head = self.model.test_cfg.rpn, self.model.rpn_head
        boxes, scores, _, levels = decode_best(head, head(maps), cfg.nms_pre, height, width)
        kept = larger_than(cfg.get('min_bbox_size', -1), boxes).nonzero().squeeze(1)
        boxes, scores, levels = boxes[kept], scores[kept], levels[kept]
        return boxes[batched_nms(boxes, scores, levels, cfg.nms)[: cfg.max_per_img]]


def _pool_regions(extractor: Any, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
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
