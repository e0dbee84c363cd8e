"""Checks that class labels and label maps fit the classes, and leave something to learn."""

import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.dataset import BaseDataset
from numpy.typing import NDArray
from PIL import Image

from ..config import ConfigView, is_in_hosts
from ..errors import join_first
from .heads import head_numbers, host_numbers
from .problem import Fault, Problem

IGNORED = -1
"""Key of `class_counts` for what the losses leave out."""
SIZE_REMEDY = (
    'an EXIF tag may turn the image when it is read: save it upright, without the tag; or annotate '
    'the image at its own size'
)
"""What to do about an image whose size differs from its annotation."""
_UNITS = dict(mmdet='box', mmseg='pixel', mmpretrain='image')  # What has a label, by host.
_IGNORED_REMEDIES = dict(
    box='they are crowds, difficult or ignored (iscrowd in COCO files); label single objects 0',
    pixel='they hold the ignore value (ignore_index, 255 by default; with reduce_zero_label also '
    '0). Masks saved as 0 and 255 need the number of the class instead, 0, 1, ...',
)
# Label maps that are read before training at most. A good data set needs one or two.
_MOST = 1000
# Of the changes between neighbouring pixels, the share that goes on in the next pixel in the same
# direction: up to 0.05 in real label maps, 0.25 and more in those that were blurred.
_BLURRED, _FEWEST_CHANGES = 0.2, 50


def class_fault(labels: Any, num_classes: int) -> Fault | None:
    """Return which labels of an image, one or several, are outside the classes."""
    wrong = sorted({label for label in np.ravel(labels).tolist() if not 0 <= label < num_classes})
    if not wrong:
        return None
    return Fault(
        f'has the label {join_first(wrong)}; {num_classes} classes are labelled 0 to '
        f'{num_classes - 1}',
        'correct the label, or the number of classes',
    )


def label_map_fault(
    info: Mapping[str, Any], content: bytes, num_classes: int, ignored: Collection[int]
) -> Fault | None:
    """Return what is wrong with a label map that a host has loaded.

    Args:
        info: The loaded sample, with `img_shape` (H, W) and `gt_seg_map`.
        content: Content of the label map file.
        num_classes: The labels are 0 to this number - 1.
        ignored: The labels that losses or evaluators leave out.
    """
    labels: NDArray[Any] = info['gt_seg_map']
    if kind := _lossy_format(content):
        return Fault(
            f'is a {kind}, which changes the labels along edges',
            'save label maps as PNG, from the originals: a conversion keeps the wrong labels',
        )
    if labels.ndim != 2:
        return Fault(
            f'has {labels.shape[-1]} channels',
            'save it with one, the number of the class (grey, or a palette)',
        )
    shape = tuple(info.get('img_shape', labels.shape))
    if labels.shape != shape:
        sizes = [f'{width}x{height}' for height, width in (labels.shape, shape)]
        return Fault(f'is {sizes[0]}, its image {sizes[1]}', SIZE_REMEDY)
    largest = _largest_wide_value(content) if labels.dtype.itemsize == 1 else 0
    if largest > 255:
        return Fault(f'has values up to {largest}, which the host wraps at 256', 'use 8 bits')
    found = np.unique(labels)
    wrong = [label for label in found[found >= num_classes].tolist() if label not in ignored]
    if not wrong:
        return None
    if blurred := blurred_fault(labels):
        return blurred
    reduced = ' after reduce_zero_label' if info.get('reduce_zero_label') else ''
    left_out = join_first(sorted(ignored)) or 'nothing'
    return Fault(
        f'has the label {join_first(wrong)}{reduced}; {num_classes} classes are labelled 0 to '
        f'{num_classes - 1}, and {left_out} is left out',
        'correct the labels, or the number of classes, or ignore_index',
    )


def blurred_fault(labels: NDArray[Any]) -> Fault | None:
    """Return that most edges of a label map (H, W) are slopes, with labels of other classes."""
    changes = slopes = 0
    values = labels.astype(np.int32)
    for rows in (values, values.T):
        steps = np.diff(rows, axis=1)
        changes += np.count_nonzero(steps)
        slopes += np.count_nonzero(steps[:, :-1] * steps[:, 1:] > 0)
    if changes < _FEWEST_CHANGES or slopes < _BLURRED * changes:
        return None
    return Fault(
        'has labels along its edges that lie between those of the regions, as after a resize that '
        'interpolates, or drawing with anti-aliasing',
        'resize the original with nearest neighbour, or draw it without anti-aliasing',
    )


def ignored_values(view: ConfigView, split: str) -> frozenset[int]:
    """Return the values of label maps that all heads (`train`) or evaluators leave out."""
    values = set(view.ignored_labels(split).values()) or {255}
    return frozenset(values if len(values) == 1 else ())


def class_counts(info: Mapping[str, Any], ignored: Collection[int]) -> Counter[int]:
    """Count the labels of a loaded sample: of pixels, of boxes, or of the image.

    Args:
        info: The sample.
        ignored: The values of a label map that losses or evaluators leave out.
    """
    if 'instances' in info:
        return Counter(
            IGNORED if each.get('ignore_flag') else each['bbox_label']
            for each in info['instances']
            if 'bbox_label' in each
        )
    counts: Counter[int] = Counter()
    if isinstance(labels := info.get('gt_seg_map'), np.ndarray):
        values, numbers = np.unique(labels, return_counts=True)
        for label, number in zip(values.tolist(), numbers.tolist(), strict=True):
            counts[IGNORED if label in ignored else label] += number
        return counts
    return Counter(
        label for label in np.ravel(info.get('gt_label', [])).tolist() if isinstance(label, int)
    )


def label_map_problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield why nothing can be learned from the label maps of mmseg's training set.

    Label maps are read until two labels are found. Files that cannot be read, and larger data sets
    in which that takes too long, are left to `check_dataset`.
    """
    if view.host != 'mmseg' or 'train' not in splits:
        return
    counts: Counter[int] = Counter()
    dataset: Any = None
    read = 0
    try:
        ignored = ignored_values(view, 'train')
        for entry, steps, _ in view.datasets('train'):
            load = [step.settings for step in steps if step.is_a(LoadAnnotations)]
            dataset = view.build_dataset(entry.settings, pipeline=load, serialize_data=False)
            for index in range(len(dataset)):
                counts += class_counts(dataset.prepare_data(index), ignored)
                read += 1
                if len(counts.keys() - {IGNORED}) > 1 or read == _MOST:
                    return
    except Exception:  # Another check reports what cannot be read.
        return
    if dataset is not None:
        yield from count_problems(view, 'train', counts, dataset)


def class_number(view: ConfigView, dataset: BaseDataset) -> int | None:
    """Return what labels must be below; None if the host assigns labels, as mmdet does."""
    if view.host == 'mmdet':
        return None
    classes = dataset.metainfo.get('classes')
    numbers = [number.classes for number in host_numbers(view)]
    return min([*numbers, len(classes)] if classes else numbers, default=None)


def count_problems(
    view: ConfigView,
    split: str,
    counts: Mapping[int, int],
    dataset: BaseDataset,
    annotated: Collection[str] = (),
) -> Iterator[Problem]:
    """Yield why nothing can be learned from a split or scored with it, or what classes it misses.

    Args:
        view: The config.
        split: `train`, `val` or `test`.
        counts: Sum of `class_counts` over the split; empty if it has no labels.
        dataset: A data set of the split, which names the classes.
        annotated: Names in the annotations, if they are known.
    """
    names = [*(dataset.metainfo.get('classes') or range(class_number(view, dataset) or 0))]
    if not names or 'thing_classes' in dataset.metainfo or not _labels_are_used(view, split):
        return
    unit, field = _UNITS[view.host or ''], f'{split}_dataloader.dataset'
    found, ignored = [label for label in counts if label != IGNORED], counts.get(IGNORED, 0)
    learns = split == 'train' and view.host != 'mmdet' and len(names) > 1
    selected = any(leaf.entry.settings.get('indices') for leaf in view.datasets(split))
    absent = [name for label, name in enumerate(names) if not counts.get(label)]
    if ignored and not found:
        remedy = _IGNORED_REMEDIES[unit]
        yield Problem(field, f'every {unit} is left out of loss and score', remedy)
    elif learns and len(found) == 1 and (ignored or not selected):
        which = f'{unit} that counts' if ignored else unit
        remedy = _IGNORED_REMEDIES[unit] if ignored else f'label them 0 to {len(names) - 1}'
        text = f'every {which} has the label {found[0]}, so nothing can be learned'
        yield Problem(field, text, remedy)
    elif absent and len(absent) < len(names):
        others = sorted(set(annotated) - set(names))
        dropped = f', and annotations of {join_first(others)} are dropped' if others else ''
        yield Problem(
            field,
            f'{len(absent)} of {len(names)} classes have no {unit}: {join_first(absent)}{dropped}. '
            'This may be meant, as in a part of a data set',
            'if not, correct the labels or metainfo.classes',
            severity='warning',
        )


def _labels_are_used(view: ConfigView, split: str) -> bool:
    """Return whether a model learns the labels that the loading steps give."""
    if view.host == 'mmpretrain':
        return bool([*head_numbers(view)])  # Pre-training without labels has no such head.
    if view.host == 'mmseg':  # A later step of the user may change them.
        steps = [step for dataset in view.datasets(split) for step in dataset.steps]
        return all(is_in_hosts(step.kind) or step.is_a(LoadAnnotations) for step in steps)
    return view.host == 'mmdet'


def _lossy_format(content: bytes) -> str | None:
    if content.startswith(b'\xff\xd8\xff'):
        return 'JPEG'
    is_webp = content.startswith(b'RIFF') and content[8:12] == b'WEBP'
    return 'lossy WebP' if is_webp and b'VP8 ' in content[12:64] else None


def _largest_wide_value(content: bytes) -> int:
    """Return the largest value of an image of more than 8 bits, or 0 for other images."""
    with suppress(Exception):  # A custom step may read it in another way.
        image = Image.open(io.BytesIO(content))
        return int(np.asarray(image).max()) if image.mode[0] in 'IF' else 0
    return 0
