"""Checks that pycocotools can decode masks in COCO format.

Run lengths that do not add up to the image size are decoded from uninitialised memory and can hang
an evaluation. A polygon of fewer than three points crashes an evaluation, while training ignores
its object. A polygon with a NaN or a very distant corner exhausts the memory.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .problem import Fault

# In pixels. pycocotools stores five points per pixel along each edge.
_FARTHEST = 1e6
_REMEDY = 'correct or remove it'


def run_length_fault(mask: Mapping[str, Any], height: int, width: int) -> Fault | None:
    """Return what is wrong with a run-length mask.

    Args:
        mask: `size` and `counts`, compressed or not.
        height: Height of the image.
        width: Width of the image.
    """
    if list(mask['size']) != [height, width]:
        return Fault(
            f'its mask is {mask["size"]} high and wide, the image {[height, width]}', _REMEDY
        )
    counts = mask['counts']
    if not isinstance(counts, (list, str)):
        return Fault(f'its mask has no run lengths, but {counts!r}', _REMEDY)
    total = sum(counts if isinstance(counts, list) else _decompress(counts))
    if total != height * width:
        return Fault(f"its mask's run lengths cover {total} of {height * width} pixels", _REMEDY)
    return None


def polygon_fault(polygons: Sequence[Any]) -> Fault | None:
    """Return which corner of a polygon mask cannot be drawn.

    Args:
        polygons: Polygons of the mask, each a list x1, y1, x2, y2, ...; other values are ignored.
    """
    for polygon in polygons:
        for number in polygon if isinstance(polygon, list) else []:
            if not (isinstance(number, (int, float)) and -_FARTHEST < number < _FARTHEST):
                return Fault(f'its mask has a corner at {number!r}', _REMEDY)
    return None


def scored_mask_fault(mask: Any, height: int, width: int) -> Fault | None:
    """Return why an evaluation cannot use a mask.

    Args:
        mask: The `segmentation` of an annotation.
        height: Height of the image.
        width: Width of the image.
    """
    if isinstance(mask, list) and mask:
        whole = isinstance(mask[0], list) and len(mask[0]) > 4
        if not whole:
            return Fault('its mask is not a list of polygons of three points or more', _REMEDY)
        return polygon_fault(mask)
    if not isinstance(mask, dict) or 'size' not in mask or 'counts' not in mask:
        return Fault('it has no mask (segmentation)', _REMEDY)
    return run_length_fault(mask, height, width)


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
        points = [point for each in mask if isinstance(each, list) for point in each]
        if any(len(each) % 2 for each in mask):
            return None
        xs, ys = points[::2], points[1::2]
        return min(xs), min(ys), max(xs), max(ys)
    if isinstance(mask['counts'], list):
        mask = coco_mask.frPyObjects(mask, int(height), int(width))
    x, y, w, h = np.asarray(coco_mask.toBbox(mask), float)
    return (x, y, x + w, y + h) if w * h else None


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
