"""Scenes of overlapping coloured shapes: a small data set that is generated when needed.

The class of an object is its shape alone; colour, texture, size, rotation and light are random.
"""

import colorsys
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

# In alphabetical order, which is the order in which folder scanners number their classes.
CLASSES = ('ring', 'square', 'star', 'triangle')
PALETTE = ((255, 128, 0), (0, 170, 255), (255, 220, 0), (0, 200, 90))
GROUND_COLOUR = (96, 96, 96)

METAINFO = {'classes': CLASSES, 'palette': PALETTE}
SEG_METAINFO = {'classes': ('ground', *CLASSES), 'palette': (GROUND_COLOUR, *PALETTE)}

SPLITS = ('train', 'val')

# Increase on any change of the scenes, so that data sets written before are recognised as outdated.
VERSION = 1

MIN_SIZE = 64
_MAX_OBJECTS = 4
_DIAMETER = (0.26, 0.56)  # of the image's side
_MIN_VISIBLE = 0.6  # of an object's own area, once everything in front of it is drawn
_TRIES = 20
_COLOUR_DRAWS = 6

# Tips and (inner / outer) radius of the shapes with straight edges.
_POLYGONS = {
    'square': (4, math.cos(math.pi / 4)),
    'star': (5, 0.45),
    'triangle': (3, math.cos(math.pi / 3)),
}
_RING_HOLE = 0.52  # inner / outer radius

_Floats = NDArray[np.float64]
_Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Instance:
    """One visible object of a scene.

    Attributes:
        label: Index into `CLASSES`.
        mask: Visible pixels, of shape (H, W); what nearer objects hide is left out.
    """

    label: int
    mask: NDArray[np.bool_]

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """Tightest box (x1, y1, x2, y2) around the mask in pixels; x2 and y2 lie outside."""
        rows = np.flatnonzero(self.mask.any(axis=1))
        columns = np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @property
    def area(self) -> int:
        """Number of visible pixels."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class Scene:
    """An image and everything drawn on its ground.

    Attributes:
        image: RGB pixels of shape (H, W, 3), 0 to 255.
        instances: The objects, farthest first; their masks are disjoint.
    """

    image: NDArray[np.uint8]
    instances: tuple[Instance, ...]


def make_scene(index: int, split: str = 'train', size: int = 128, seed: int = 0) -> Scene:
    """Make one scene; the same arguments give the same scene, whatever else is made.

    Args:
        index: Number of the scene in its split, from 0.
        split: One of `SPLITS`; the splits draw from unrelated random streams.
        size: Height and width of the image in pixels, at least `MIN_SIZE`.
        seed: Seed of the whole data set, not negative.

    Returns:
        A scene of 1 to 4 objects, each wholly inside the image and more than half visible.

    Raises:
        ConfigError: If `split` is unknown, `size` is too small, or `index` or `seed` is negative.
    """
    if split not in SPLITS:
        raise ConfigError(f'split must be one of {SPLITS}, got {split!r}')
    if size < MIN_SIZE:
        raise ConfigError(f'size must be at least {MIN_SIZE} px, got {size}')
    if index < 0 or seed < 0:
        raise ConfigError(f'index and seed must not be negative, got {index} and {seed}')
    stream = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index))
    rng = np.random.default_rng(stream)

    colours = [_hsv(rng, saturation=(0, 0.45), value=(0.3, 0.8))]
    canvas = _textured(rng, colours[0], size, strength=0.08)
    owner = np.full((size, size), -1)
    labels: list[int] = []
    areas: list[int] = []
    for _ in range(rng.integers(1, _MAX_OBJECTS + 1)):
        label = int(rng.integers(len(CLASSES)))
        distance = _place(rng, CLASSES[label], owner, areas)
        if distance is None:
            continue
        owner[distance < 0] = len(labels)
        labels.append(label)
        areas.append(int((distance < 0).sum()))
        colours.append(_contrasting(rng, colours))
        paint = _textured(rng, colours[-1], size, strength=0.05)
        coverage = np.clip(0.5 - distance, 0, 1)[..., None]
        canvas += coverage * (paint - canvas)

    canvas *= _light(rng, size)[..., None]
    canvas += rng.normal(0, 0.012, canvas.shape)
    image = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    instances = tuple(Instance(label, owner == i) for i, label in enumerate(labels))
    return Scene(image, instances)


def _place(
    rng: np.random.Generator, name: str, owner: NDArray[np.int_], areas: list[int]
) -> _Floats | None:
    """Find a place that does not hide too much of an earlier object; None if there is none.

    Returns:
        Signed distance in pixels of every pixel from the object's edge, negative inside.
    """
    size = len(owner)
    visible_before = np.array(areas)
    for _ in range(_TRIES):
        radius = rng.uniform(*_DIAMETER) * size / 2
        centre = rng.uniform(radius, size - radius, 2)
        distance = _distance(name, size, centre, radius, rng.uniform(0, 2 * math.pi))
        left = np.bincount(owner[(distance >= 0) & (owner >= 0)], minlength=len(areas))
        if (left >= _MIN_VISIBLE * visible_before).all():
            return distance
    return None


def _distance(name: str, size: int, centre: _Floats, radius: float, turn: float) -> _Floats:
    """Return the signed distance (size, size) in pixels from a shape's edge, exact near it."""
    x, y = _grid(size)
    r = np.hypot(x - centre[0], y - centre[1])
    if name == 'ring':
        middle, half_width = radius * (1 + _RING_HOLE) / 2, radius * (1 - _RING_HOLE) / 2
        return np.abs(r - middle) - half_width
    tips, inner = _POLYGONS[name]
    # Fold the plane into one half sector, in which the outline is one line from tip to notch.
    sector = 2 * math.pi / tips
    angle = np.abs((np.arctan2(y - centre[1], x - centre[0]) + turn) % sector - sector / 2)
    tip_x, tip_y = radius * math.cos(sector / 2), radius * math.sin(sector / 2)
    along_x, along_y = radius * inner - tip_x, -tip_y
    cross = along_x * (r * np.sin(angle) - tip_y) - along_y * (r * np.cos(angle) - tip_x)
    # Past a sharp tip the line's distance grows slowly, which would smear the tip.
    return np.maximum(cross / math.hypot(along_x, along_y), r - radius)


def _grid(size: int) -> tuple[_Floats, _Floats]:
    """Return the x and y coordinates of the pixel centres, broadcastable to (size, size)."""
    axis = np.arange(size, dtype=np.float64) + 0.5
    return axis[None, :], axis[:, None]


def _textured(rng: np.random.Generator, colour: _Colour, size: int, strength: float) -> _Floats:
    """Return a (size, size, 3) surface of blotches and stripes around one colour."""
    surface = np.broadcast_to(np.array(colour), (size, size, 3)).copy()
    for cells in (4, 12):
        grey = rng.normal(0, strength, (cells, cells, 1))
        tint = rng.normal(0, strength / 2, (cells, cells, 3))
        surface += cv2.resize(grey + tint, (size, size), interpolation=cv2.INTER_CUBIC) / 2
    x, y = _grid(size)
    turn, phase = rng.uniform(0, 2 * math.pi, 2)
    period = rng.uniform(0.05, 0.25) * size
    wave = np.sin((x * math.cos(turn) + y * math.sin(turn)) * 2 * math.pi / period + phase)
    surface += (rng.uniform(0, strength) * wave)[..., None]
    return surface


def _light(rng: np.random.Generator, size: int) -> _Floats:
    """Return brightness factors (size, size): an exposure and a gradient across the image."""
    x, y = _grid(size)
    turn = rng.uniform(0, 2 * math.pi)
    slope = ((x / size - 0.5) * math.cos(turn) + (y / size - 0.5) * math.sin(turn)) * 0.3
    return rng.uniform(0.75, 1.1) * (1 + slope)


def _hsv(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> _Colour:
    """Return a random colour (r, g, b), 0 to 1."""
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))


def _contrasting(rng: np.random.Generator, used: list[_Colour]) -> _Colour:
    """Return the one of a few random colours that is farthest from those in use."""
    draws = [_hsv(rng, saturation=(0.4, 1), value=(0.4, 1)) for _ in range(_COLOUR_DRAWS)]
    return max(draws, key=lambda colour: min(math.dist(colour, other) for other in used))
