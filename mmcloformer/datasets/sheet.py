"""Contact sheets: scenes side by side with their ground truth drawn in."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from .shapes import CLASSES, PALETTE, Scene

_SCALE = 2


def contact_sheet(scenes: Sequence[Scene], columns: int = 6) -> NDArray[np.uint8]:
    """Arrange scenes in rows, at twice their size, with masks, boxes and classes of all objects.

    Args:
        scenes: Scenes of one size, at least one.
        columns: Number of scenes per row.

    Returns:
        RGB image; the unused rest of the last row is white.
    """
    tiles = [_draw(scene) for scene in scenes]
    return make_grid(tiles, columns, padding=4, pad_value=255).permute(1, 2, 0).numpy()


def _draw(scene: Scene) -> Tensor:
    labels = [instance.label for instance in scene.instances]
    colours = [PALETTE[label] for label in labels]
    masks = np.stack([instance.mask for instance in scene.instances])
    image = torch.from_numpy(_enlarge(scene.image.transpose(2, 0, 1)).copy())
    image = draw_segmentation_masks(image, torch.from_numpy(_enlarge(masks)), 0.6, colours)
    boxes = _SCALE * torch.tensor([instance.bbox for instance in scene.instances])
    return draw_bounding_boxes(image, boxes, [CLASSES[label] for label in labels], colours)


def _enlarge(maps: NDArray[np.generic]) -> NDArray[np.generic]:
    return maps.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
