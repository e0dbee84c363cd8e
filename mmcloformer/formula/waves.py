"""Images of closed waves: contours around a centre whose radius is a sum of two sine waves.

After "Visual Atoms" (Takashima et al., CVPR 2023) and RCDB (Kataoka et al., CVPR 2022), whose
classes are formulas and whose images can be made without end, licence or storage. The ranges below
are this project's. A class fixes the shape: frequencies, amplitudes, number and spacing of the
contours. Its instances differ in place, size, turn, thickness, colours and light, and a little in
shape.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_CONTOURS = 8
MAX_FREQUENCY = 16

# What one image is drawn from, and how many numbers each takes. Lengths are in halves of the
# image's side, angles in radians, colours from 0 to 1.
FIELDS = dict(
    frequency=2,
    amplitude=2,  # of the outermost contour's mean radius
    phase=2,
    contours=1,
    inner=1,  # radius of the innermost contour, of the outermost's
    twist=1,  # turn from one contour to the next
    aspect=1,
    centre=2,
    reach=1,  # farthest that the outermost contour gets from the centre
    turn=1,
    thickness=1,
    light=2,  # slope of the brightness
    ground=3,
    colours=3 * MAX_CONTOURS,
)
NUM_FIELDS = sum(FIELDS.values())


def draw_instance(seed: int, label: int, instance: int) -> NDArray[np.float32]:
    """Draw the numbers that make one image; the same arguments give the same numbers.

    Args:
        seed: Seed of the whole data set, not negative.
        label: Number of the class.
        instance: Number of the image in its class.

    Returns:
        The `FIELDS` one after another, of shape (NUM_FIELDS,).
    """
    fields = _draw_class(np.random.default_rng([seed, 0, label]))
    rng = np.random.default_rng([seed, 1, label, instance])
    ground = rng.uniform(0, 1, 3)
    fields |= dict(
        phase=fields['phase'] + rng.uniform(-0.2, 0.2, 2),
        aspect=fields['aspect'] * rng.uniform(0.85, 1.15),
        centre=rng.uniform(-0.25, 0.25, 2),
        reach=math.exp(rng.uniform(math.log(0.45), 0)),
        turn=rng.uniform(0, 2 * math.pi),
        thickness=math.exp(rng.uniform(math.log(0.01), math.log(0.06))),
        light=rng.uniform(-0.3, 0.3, 2),
        ground=ground,
        # Away from the ground's in every channel, round the circle from 1 to 0.
        colours=(np.tile(ground, MAX_CONTOURS) + rng.uniform(0.25, 0.75, 3 * MAX_CONTOURS)) % 1,
    )
    return np.concatenate([np.atleast_1d(fields[name]) for name in FIELDS]).astype(np.float32)


def _draw_class(rng: np.random.Generator) -> dict[str, NDArray[np.float64] | float]:
    frequency = rng.integers(1, MAX_FREQUENCY + 1, 2)
    return dict(
        frequency=frequency,
        amplitude=rng.uniform(0.1, 0.6, 2) / np.sqrt(frequency),
        phase=rng.uniform(0, 2 * math.pi, 2),
        contours=rng.integers(1, MAX_CONTOURS + 1),
        inner=rng.uniform(0.15, 0.8),
        twist=rng.uniform(-0.3, 0.3),
        aspect=rng.uniform(0.5, 1),
    )


def render(drawings: Tensor, size: int) -> Tensor:
    """Draw images on the device of their numbers.

    No line is traced: every pixel asks how far it is from each contour, so that a batch is a few
    elementwise operations and edges are smooth.

    Args:
        drawings: The `FIELDS` of each image, `(N, NUM_FIELDS)`.
        size: Side of the images in pixels.

    Returns:
        RGB images `(N, 3, size, size)`, 0 to 255, in single precision.
    """
    parts = torch.split(drawings.float(), list(FIELDS.values()), dim=1)
    fields = {name: part[..., None, None] for name, part in zip(FIELDS, parts)}
    axis = (torch.arange(size, device=drawings.device) + 0.5) * 2 / size - 1
    x, y = axis[None, None, None, :], axis[None, None, :, None]

    image = fields['ground'].expand(-1, -1, size, size)
    colours = fields['colours'].reshape(-1, MAX_CONTOURS, 3, 1, 1)
    for number, coverage in enumerate(_cover(fields, x, y, size)):
        image = torch.lerp(image, colours[:, number], coverage)
    light = 1 + fields['light'][:, :1] * x + fields['light'][:, 1:] * y
    return (255 * image * light).clamp_(0, 255)


def _cover(fields: Mapping[str, Tensor], x: Tensor, y: Tensor, size: int) -> Iterator[Tensor]:
    """What share of each pixel `(N, 1, size, size)` each contour covers."""
    across, down = x - fields['centre'][:, :1], y - fields['centre'][:, 1:]
    cos, sin = fields['turn'].cos(), fields['turn'].sin()
    along = across * cos + down * sin
    aside = (down * cos - across * sin) / fields['aspect']
    radius, angle = torch.hypot(along, aside), torch.atan2(aside, along)
    outermost = fields['reach'] / (1 + fields['amplitude'].sum(dim=1, keepdim=True))

    for number in range(MAX_CONTOURS):
        shrunk = 1 - (1 - fields['inner']) * number / fields['contours']
        turned = angle + fields['twist'] * number
        theta = fields['frequency'] * turned + fields['phase']  # (N, 2, size, size)
        wave = 1 + (fields['amplitude'] * theta.sin()).sum(dim=1, keepdim=True)
        slope = (fields['amplitude'] * fields['frequency'] * theta.cos()).sum(dim=1, keepdim=True)
        # The distance along the radius, over how steeply the contour crosses it.
        steep = torch.hypot(torch.ones_like(slope), slope / wave.clamp(min=0.1))
        distance = (radius - outermost * shrunk * wave).abs() / steep
        inside = (fields['thickness'] / 2 - distance) * size / 2 + 0.5
        yield inside.clamp_(0, 1) * (number < fields['contours'])
