"""Checks that pycocotools can decode masks in COCO format.

Run lengths that do not add up to the image size are decoded from uninitialised memory and can hang
an evaluation. A polygon of fewer than three points crashes an evaluation, while training ignores
its object. A polygon with a NaN or a very distant corner exhausts the memory.
"""

import math
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .problem import Fault

# In pixels. pycocotools stores five points per pixel along each edge.
_FARTHEST = 1e6
_REMEDY = 'correct or remove it'


def mask_fault(mask: Any, height: int, width: int) -> Fault | None:
    """Return why a mask cannot be decoded, or None; also for other forms, which a loader ignores.

    Args:
        mask: The `segmentation` of an annotation.
        height: Height of the image.
        width: Width of the image.
    """
    if _is_run_lengths(mask):
        size, counts = mask['size'], mask['counts']
        total = sum(counts if isinstance(counts, list) else _decompress(counts))
        if list(size) != [height, width]:
            return Fault(f'its mask is {size} high and wide, the image {[height, width]}', _REMEDY)
        if total != height * width:
            found = f"its mask's run lengths cover {total} of {height * width} pixels"
            return Fault(found, _REMEDY)
    for polygon in mask if isinstance(mask, list) else ():
        for number in polygon if isinstance(polygon, list) else ():
            if not (isinstance(number, (int, float)) and -_FARTHEST < number < _FARTHEST):
                return Fault(f'its mask has a corner at {number!r}', _REMEDY)
    return None


def scored_mask_fault(mask: Any, height: int, width: int) -> Fault | None:
    """Return why an evaluation cannot use a mask, or None.

    Args:
        mask: The `segmentation` of an annotation.
        height: Height of the image.
        width: Width of the image.
    """
    if isinstance(mask, list) and mask:
        if not (isinstance(mask[0], list) and len(mask[0]) > 4):
            return Fault('its mask is not a list of polygons of three points or more', _REMEDY)
    elif not _is_run_lengths(mask):
        return Fault('it has no mask (segmentation)', _REMEDY)
    return mask_fault(mask, height, width)


def mask_extent(mask: Any, height: float, width: float) -> tuple[float, ...] | None:
    """Return the left, top, right and bottom of a mask; None if it is empty or not valid.

    Args:
        mask: The `segmentation` of an annotation.
        height: Height of the image, or NaN.
        width: Width of the image, or NaN.
    """
    if math.isnan(height) or scored_mask_fault(mask, int(height), int(width)):
        return None
    if isinstance(mask, list):
        parts = [each for each in mask if isinstance(each, list) and len(each) % 2 == 0]
        points = np.reshape([number for each in parts for number in each], (-1, 2))
        return (*points.min(axis=0), *points.max(axis=0)) if len(points) else None
    if isinstance(mask['counts'], list):
        mask = coco_mask.frPyObjects(mask, int(height), int(width))
    x, y, w, h = np.asarray(coco_mask.toBbox(mask), float)
    return (x, y, x + w, y + h) if w * h else None


def _is_run_lengths(mask: Any) -> bool:
    return isinstance(mask, dict) and 'size' in mask and isinstance(mask.get('counts'), (list, str))


def _decompress(text: str) -> list[int]:
    """Decode the run lengths of a pycocotools string.

    A number is a sequence of five-bit digits, lowest first. From the fourth number on, it is the
    difference to the run length two places before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text.encode():
        digit = character - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
