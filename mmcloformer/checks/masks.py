"""Whether masks in COCO's format are what pycocotools takes them for.

Run lengths that do not add up to the image are decoded into whatever was in memory, and can hang an
evaluation for good. A polygon too short crashes it, though training leaves its object out. One with
a NaN, or a corner very far off, takes all memory there is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# In pixels. pycocotools walks along the edges and keeps every step, five to a pixel.
_FARTHEST = 1e6


def run_length_problem(mask: Mapping[str, Any], height: int, width: int) -> str | None:
    """Say what is wrong with a mask of run lengths.

    Args:
        mask: `size` and `counts`, compressed or not.
        height: Of the image.
        width: Of the image.

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
    """Say which corner of a mask cannot be drawn.

    Args:
        polygons: Of the mask, each as x1, y1, x2, y2 and so on; what is no list is left out.

    Returns:
        The reason, or None.
    """
    for polygon in polygons:
        for number in polygon if isinstance(polygon, list) else []:
            if not (isinstance(number, (int, float)) and -_FARTHEST < number < _FARTHEST):
                return f'its mask has a corner at {number!r}'
    return None


def scored_mask_problem(mask: Any, height: int, width: int) -> str | None:
    """Say why an evaluation could not use a mask.

    Args:
        mask: The `segmentation` of an annotation.
        height: Of the image.
        width: Of the image.

    Returns:
        The reason, or None.
    """
    if isinstance(mask, list) and mask:
        whole = isinstance(mask[0], list) and len(mask[0]) > 4
        if not whole:
            return 'its mask is no list of polygons of three points or more'
        return polygon_problem(mask)
    if not isinstance(mask, dict) or 'size' not in mask or 'counts' not in mask:
        return 'it has no mask (segmentation)'
    return run_length_problem(mask, height, width)


def _decompress(text: str) -> list[int]:
    """The run lengths out of pycocotools' string: numbers in digits of five bits, lowest first,
    from the fourth on as the difference to the one before the last."""
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
