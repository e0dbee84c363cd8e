"""Checks that annotations leave something to learn: labels that count, boxes in the right form."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import join_first

IGNORED = -1
"""Key of `class_counts` for what the losses leave out."""
UNITS = dict(mmdet='box', mmseg='pixel', mmpretrain='image')
"""What has a label, by host."""
# Pixels by which rounding may move a box over the edge of its image.
_TOLERANCE = 2
# Boxes written as corners end far outside: by this share of a side, in more than a few boxes.
_FAR, _FEW = 0.1, 3


def class_counts(info: Mapping[str, Any], ignored: int) -> Counter[int]:
    """Count the labels of a loaded sample: of pixels, of boxes, or of the image.

    Args:
        info: The sample.
        ignored: The value of a label map that the losses ignore.
    """
    if 'instances' in info:
        return Counter(
            IGNORED if each.get('ignore_flag') else each['bbox_label']
            for each in info['instances']
            if 'bbox_label' in each
        )
    if isinstance(labels := info.get('gt_seg_map'), np.ndarray):
        values, numbers = np.unique(labels, return_counts=True)
        found = zip(values.tolist(), numbers.tolist(), strict=True)
        return Counter({IGNORED if label == ignored else label: count for label, count in found})
    return Counter(
        label for label in np.ravel(info.get('gt_label', [])).tolist() if isinstance(label, int)
    )


def unlearnable(
    scope: str, split: str, counts: Mapping[int, int], num_classes: int, partial: bool
) -> Iterator[str]:
    """Yield why nothing can be learned from a split, or scored with it.

    Args:
        scope: The host.
        split: `train`, `val` or `test`.
        counts: Sum of `class_counts` over the split; empty if it has no labels.
        num_classes: Number of classes of the data set.
        partial: Whether the config takes only some samples (`indices`).
    """
    unit, where = UNITS[scope], f'{split}_dataloader.dataset'
    found = [label for label in counts if label != IGNORED]
    ignored, total = counts.get(IGNORED, 0), sum(counts.values())
    if total and not found:
        yield f'{where}: every {unit} is left out of loss and score: {_ignored_hint(scope)}'
    elif len(found) == 1 and num_classes > 1 and scope != 'mmdet' and split == 'train':
        if ignored:
            yield (
                f'{where}: all {unit}s that count have the label {found[0]}, so nothing can be '
                f'learned; {ignored / total:.1%} are left out of the loss: {_ignored_hint(scope)}'
            )
        elif not partial:
            yield (
                f'{where}: every {unit} has the label {found[0]}, so nothing can be learned; '
                f'label them 0 to {num_classes - 1}'
            )


def absent_classes(
    scope: str, split: str, counts: Mapping[int, int], names: Sequence[str]
) -> Iterator[str]:
    """Yield which classes have no label in a split.

    Args:
        scope: The host.
        split: `train`, `val` or `test`.
        counts: Sum of `class_counts` over the split; empty if it has no labels.
        names: Names of the classes, by label.
    """
    absent = [name for label, name in enumerate(names) if not counts.get(label)]
    if absent and any(counts.get(label) for label in range(len(names))):
        unit = UNITS[scope]
        yield (
            f'{split}_dataloader.dataset: {len(absent)} of {len(names)} classes have no {unit}: '
            f'{join_first(absent)}. This may be meant, as in a part of a data set; if not, correct '
            'the labels or metainfo.classes'
        )


def box_problems(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Yield why no object of a COCO file can be learned.

    Args:
        images: Images of the file.
        annotations: Annotations of the configured classes.
    """
    if annotations and all(each.get('iscrowd') for each in annotations):
        yield (
            f'all {len(annotations)} objects have iscrowd=1, so loss and score leave them out; '
            'set iscrowd=0 for single objects'
        )
    edges = _compare_with_edges(images, annotations)
    if edges.are_corners:
        yield (
            f'{edges.far} of {edges.total} boxes cross the edge of their image, and all fit into '
            'it as corners x1, y1, x2, y2; a bbox is [x, y, width, height], so write width '
            'x2 - x1 and height y2 - y1'
        )


def box_warnings(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Yield what is unusual about the boxes of a COCO file but may be meant.

    Args:
        images: Images of the file.
        annotations: Annotations of the configured classes.
    """
    edges = _compare_with_edges(images, annotations)
    if edges.crossing > 0.5 * edges.total and not edges.are_corners:
        yield (
            f'{edges.crossing} of {edges.total} boxes cross the edge of their image. This may be '
            'meant for objects that the image cuts off; if not, check that a bbox is '
            '[x, y, width, height] in pixels of the image as it is'
        )


def _ignored_hint(scope: str) -> str:
    if scope == 'mmseg':
        return (
            'they hold the ignore value (ignore_index, 255 by default; with reduce_zero_label also '
            '0). Masks saved as 0 and 255 need the number of the class instead, 0, 1, ...'
        )
    return 'they are crowds, difficult or ignored (iscrowd in COCO files); label single objects 0'


class _Edges(NamedTuple):
    """Numbers of boxes: beyond an edge, far beyond one, inside if read as two corners, and all."""

    crossing: int
    far: int
    corners: int
    total: int

    @property
    def are_corners(self) -> bool:
        """Whether the boxes are surely written as corners."""
        return self.total >= _FEW and self.far > 0.5 * self.total and self.corners == self.total


def _compare_with_edges(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> _Edges:
    """Compare boxes with the edges of their images.

    Boxes that are no four numbers, and images without a size, are left to other checks.
    """
    sizes = {each['id']: (each.get('width'), each.get('height')) for each in images}
    rows = [
        (*box, *sizes[each['image_id']])
        for each in annotations
        if isinstance(box := each.get('bbox'), list)
        and len(box) == 4
        and each['image_id'] in sizes
        and all(isinstance(value, (int, float)) for value in (*box, *sizes[each['image_id']]))
    ]
    x, y, w, h, width, height = np.array(rows, float).reshape(-1, 6).T
    with np.errstate(invalid='ignore'):
        across, down = x + w - width, y + h - height
        crossing = (across > _TOLERANCE) | (down > _TOLERANCE)
        far = (across > np.maximum(_TOLERANCE, _FAR * width)) | (
            down > np.maximum(_TOLERANCE, _FAR * height)
        )
        corners = (w > x) & (h > y) & (w <= width + _TOLERANCE) & (h <= height + _TOLERANCE)
    return _Edges(int(crossing.sum()), int(far.sum()), int(corners.sum()), len(rows))
