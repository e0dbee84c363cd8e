"""Whether class labels and label maps fit the classes, which the losses find out the hard way."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import join_first


def class_problem(labels: Any, num_classes: int) -> str | None:
    """Say which labels of an image are no classes.

    Args:
        labels: One number, or several.
        num_classes: Number of classes.

    Returns:
        The reason and what to do, or None.
    """
    wrong = sorted({label for label in np.ravel(labels).tolist() if not 0 <= label < num_classes})
    if not wrong:
        return None
    return f'has the label {join_first(wrong)}; {num_classes} classes are labelled 0 to {num_classes - 1}'


def label_map_problem(
    info: Mapping[str, Any], content: bytes, num_classes: int, ignored: int
) -> str | None:
    """Say what is wrong with a label map that a host has loaded.

    Args:
        info: What it loaded, with `img_shape` (H, W) and `gt_seg_map`.
        content: The label map's file.
        num_classes: Number of classes.
        ignored: The label that the losses leave out.

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
    largest = _largest_wide_value(content)
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
    """Say what to do about an image that is not of the size that its annotation says.

    Args:
        said: Height and width of the annotation.
        found: Height and width of the image as loaded.
    """
    if said == tuple(found)[::-1]:
        return 'an EXIF tag may turn the image when it is read: save it upright, without the tag'
    return 'annotate the image at its own size'


def _largest_wide_value(content: bytes) -> int:
    """The largest value of an image of more than 8 bits; 0 for others."""
    image = Image.open(io.BytesIO(content))
    return int(np.asarray(image).max()) if image.mode.startswith('I') else 0
