"""Detection in one stage: RetinaNet and its kin."""

from torch import Tensor

from .boxes import batched_nms, best_of_levels, larger_than, pad_to_multiple
from .graph import Graph


class DetectorGraph(Graph):
    """Boxes `(K, 4)`, scores `(K,)` and labels `(K,)` of one image, best first.

    Boxes are corners x1, y1, x2, y2 in pixels of the input. Images need no padding: the graph
    pads to the config's divisor, as the host does, and clips boxes to what it was given.
    """

    task = 'detection'
    outputs = ('boxes', 'scores', 'labels')
    batched = False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cfg, head = self.model.test_cfg, self.model.bbox_head
        padded = pad_to_multiple(images, self.model.data_preprocessor.pad_size_divisor)
        maps = head(self.model.extract_feat(self.cast(padded)))
        height, width = images.shape[2:]
        boxes, scores, labels, _ = best_of_levels(head, maps, cfg.nms_pre, height, width)
        valid = (scores > cfg.score_thr) & larger_than(cfg.get('min_bbox_size', -1), boxes)
        kept = valid.nonzero().squeeze(1)
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        kept = batched_nms(boxes, scores, labels, cfg.nms)[: cfg.max_per_img]
        return boxes[kept], scores[kept], labels[kept]
