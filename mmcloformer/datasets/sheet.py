"""Contact sheets: scenes side by side with their ground truth drawn in."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .shapes import CLASSES, PALETTE, Scene

_GAP = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_scene(scene: Scene, scale: int = 2) -> NDArray[np.uint8]:
    """Draw a scene with the outline, box and class of every object.

    Args:
        scene: The scene.
        scale: Integer scale factor.

    Returns:
        RGB image of shape (scale * H, scale * W, 3).
    """
    image = _enlarge(scene.image, scale)
    for instance in scene.instances:
        mask = _enlarge(instance.mask.astype(np.uint8), scale)
        outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, outlines, -1, (255, 255, 255), 1)
        x1, y1, x2, y2 = (scale * edge for edge in instance.bbox)
        cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), PALETTE[instance.label], 1)
    # Draw the names last, so that no box covers them.
    for instance in scene.instances:
        x1, y1, *_ = (scale * edge for edge in instance.bbox)
        name = CLASSES[instance.label]
        (width, height), below = cv2.getTextSize(name, _FONT, 0.38, 1)
        x, y = min(x1, image.shape[1] - width), max(y1 - height - below, 0)
        end = (x + width, y + height + below)
        cv2.rectangle(image, (x, y), end, PALETTE[instance.label], cv2.FILLED)
        cv2.putText(image, name, (x, y + height), _FONT, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return image


def contact_sheet(scenes: Sequence[Scene], columns: int = 6, scale: int = 2) -> NDArray[np.uint8]:
    """Arrange drawn scenes in rows.

    Args:
        scenes: Scenes of one size, at least one.
        columns: Number of scenes per row.
        scale: Integer scale factor of the scenes.

    Returns:
        RGB image; the unused rest of the last row is white.
    """
    tiles = [draw_scene(scene, scale) for scene in scenes]
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    step_y, step_x = height + _GAP, width + _GAP
    sheet = np.full((rows * step_y - _GAP, columns * step_x - _GAP, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * step_y, i % columns * step_x
        sheet[y : y + height, x : x + width] = tile
    return sheet


def _enlarge(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
