"""Checks that class labels and label maps match the classes; others crash in the loss."""

from collections.abc import Mapping
from typing import Any

import mmcv
import numpy as np
from numpy.typing import NDArray

from ..errors import join_first


def class_problem(labels: Any, num_classes: int) -> str | None:
    """Return which labels of an image are outside the classes.

    Args:
        labels: One label or several.
        num_classes: Number of classes.

    Returns:
        The reason and what to do, or None.
    """
    wrong = sorted({label for label in np.ravel(labels).tolist() if not 0 <= label < num_classes})
    if not wrong:
        return None
    return (
        f'has the label {join_first(wrong)}; {num_classes} classes are labelled 0 to '
        f'{num_classes - 1}'
    )


def label_map_problem(
    info: Mapping[str, Any], content: bytes, num_classes: int, ignored: int, backend: str | None
) -> str | None:
    """Return what is wrong with a label map that a host has loaded.

    Args:
        info: The loaded sample, with `img_shape` (H, W) and `gt_seg_map`.
        content: Content of the label map file.
        num_classes: Number of classes.
        ignored: The label that the losses ignore.
        backend: Decoder of the host's loading step; None for mmcv's default.

    Returns:
        The reason and what to do, or None.
    """
    labels: NDArray[np.uint8] = info['gt_seg_map']
    if labels.ndim != 2:
        return (
            f'has {labels.shape[-1]} channels; save it with one, the number of the class '
            '(grey, or a palette)'
        )
    shape = tuple(info['img_shape'])
    if labels.shape != shape:
        sizes = [f'{width}x{height}' for height, width in (labels.shape, shape)]
        return f'is {sizes[0]}, its image {sizes[1]}; {size_hint(labels.shape, shape)}'
    largest = _largest_wide_value(content, backend)
    if largest > 255:
        return f'has values up to {largest}, which the host wraps at 256; save it with 8 bits'
    found = np.unique(labels)
    wrong = found[(found >= num_classes) & (found != ignored)].tolist()
    if wrong:
        reduced = ' after reduce_zero_label' if info.get('reduce_zero_label') else ''
        return (
            f'has the label {join_first(wrong)}{reduced}; {num_classes} classes are labelled 0 to '
            f'{num_classes - 1}, and {ignored} is left out'
        )
    return None


def size_hint(said: tuple[Any, ...], found: tuple[int, ...]) -> str:
    """Return what to do about an image whose size differs from its annotation.

    Args:
        said: Height and width according to the annotation.
        found: Height and width of the image as loaded.
    """
    if said == tuple(found)[::-1]:
        return 'an EXIF tag may turn the image when it is read: save it upright, without the tag'
    return 'annotate the image at its own size'


def _largest_wide_value(content: bytes, backend: str | None) -> int:
    """Return the largest value of an image of more than 8 bits, or 0 for other images."""
    if content.startswith(b'\xff\xd8') or (content.startswith(b'\x89PNG') and content[24] <= 8):
        return 0
    labels = mmcv.imfrombytes(content, flag='unchanged', backend=backend)
    return int(labels.max()) if labels.dtype.itemsize > 1 else 0
