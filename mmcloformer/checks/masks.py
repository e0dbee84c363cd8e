"""Whether masks in COCO's format are what pycocotools takes them for.

Run lengths that do not add up to the image are decoded into whatever was in memory, and can hang an
evaluation for good. A polygon too short crashes it, though training leaves its object out.
"""

from collections.abc import Mapping
from typing import Any


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
        return None if whole else 'its mask is no list of polygons of three points or more'
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
