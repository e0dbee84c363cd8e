"""Checks that pycocotools can decode masks in COCO format.

Run lengths that do not add up to the image size are decoded from uninitialised memory and can hang
an evaluation. A polygon of fewer than three points crashes an evaluation, while training ignores
its object. A polygon with a NaN or a very distant corner exhausts the memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# In pixels. pycocotools stores five points per pixel along each edge.
_FARTHEST = 1e6


def run_length_problem(mask: Mapping[str, Any], height: int, width: int) -> str | None:
    """Return what is wrong with a run-length mask.

    Args:
        mask: `size` and `counts`, compressed or not.
        height: Height of the image.
        width: Width of the image.

    Returns:
        The reason, or None.
    """
    if list(mask['size']) != [height, width]:
        return f'its mask is {mask["size"]} high and wide, the image {[height, width]}'
    counts = mask['counts']
    total = sum(counts if isinstance(counts, list) else _decompress(counts))
    if total != height * width:
        return f"its mask's run lengths cover {total} of {height * width} pixels"
    return None


def polygon_problem(polygons: Sequence[Any]) -> str | None:
    """Return which corner of a polygon mask cannot be drawn.

    Args:
        polygons: Polygons of the mask, each a list x1, y1, x2, y2, ...; other values are ignored.

    Returns:
        The reason, or None.
    """
    for polygon in polygons:
        for number in polygon if isinstance(polygon, list) else []:
            if not (isinstance(number, (int, float)) and -_FARTHEST < number < _FARTHEST):
                return f'its mask has a corner at {number!r}'
    return None


def scored_mask_problem(mask: Any, height: int, width: int) -> str | None:
    """Return why an evaluation cannot use a mask.

    Args:
        mask: The `segmentation` of an annotation.
        height: Height of the image.
        width: Width of the image.

    Returns:
        The reason, or None.
    """
    if isinstance(mask, list) and mask:
        whole = isinstance(mask[0], list) and len(mask[0]) > 4
        if not whole:
            return 'its mask is not a list of polygons of three points or more'
        return polygon_problem(mask)
    if not isinstance(mask, dict) or 'size' not in mask or 'counts' not in mask:
        return 'it has no mask (segmentation)'
    return run_length_problem(mask, height, width)


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
