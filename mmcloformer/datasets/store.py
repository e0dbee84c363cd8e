"""Writes the "shapes" data set once, and never over other data."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from ..errors import ConfigError, DataError
from .layouts import LAYOUTS
from .shapes import CLASSES, SPLITS, VERSION, make_scene

MARKER = '.mmcloformer-shapes.json'
_STAGING = '.mmcloformer-shapes.partial'


@dataclass(frozen=True)
class Report:
    """Contents of a data set and what was written.

    Attributes:
        written: Layouts written by this call; empty when all existed.
        counts: Number of objects by split and class.
    """

    written: tuple[str, ...]
    counts: dict[str, dict[str, int]]


def write_shapes(
    root: str | Path,
    layouts: Iterable[str] = tuple(LAYOUTS),
    num_train: int = 800,
    num_val: int = 100,
    size: int = 128,
    seed: int = 0,
) -> Report:
    """Write the data set, one folder per layout, unless it already exists.

    Layouts are written to a temporary folder and renamed when they are complete. A marker file in
    `root` holds the arguments; nothing that exists is changed or removed.

    Args:
        root: Folder to write to. It may be missing, empty, or hold a set of the same arguments.
        layouts: Names from `LAYOUTS`.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        size: Height and width of a scene in pixels.
        seed: Seed of the data set.

    Returns:
        What was written and the number of objects in the data set.

    Raises:
        ConfigError: If an argument is out of range or a layout is unknown.
        DataError: If `root` is a file, or holds other data or scenes of other arguments.
    """
    root = Path(root)
    wanted = list(dict.fromkeys(layouts))
    unknown = [name for name in wanted if name not in LAYOUTS]
    if unknown or not wanted:
        raise ConfigError(f'layouts must be some of {tuple(LAYOUTS)}, got {wanted}')
    if num_train < 1 or num_val < 1:
        raise ConfigError(
            f'num_train and num_val must be at least 1, got {num_train} and {num_val}'
        )
    make_scene(0, size=size, seed=seed)  # refuses a bad size or seed before anything is touched
    if root.exists() and not root.is_dir():
        raise DataError(f'{root} is a file; name a new or empty folder')

    recipe = dict(version=VERSION, num_train=num_train, num_val=num_val, size=size, seed=seed)
    marker, staging = root / MARKER, root / _STAGING
    saved = json.loads(marker.read_text()) if marker.exists() else None
    present = [path.name for path in root.iterdir()] if root.exists() else []
    if saved is not None and saved['recipe'] != recipe:
        raise DataError(
            f'{root} holds scenes made with other arguments ({saved["recipe"]}); name another '
            'folder, or delete it'
        )
    if saved is None and set(present) - {_STAGING}:
        raise DataError(
            f'{root} is not empty and was not written by mmcloformer (it has no {MARKER}); '
            'name a new or empty folder'
        )
    todo = [name for name in wanted if name not in present]
    if saved is not None and not todo:
        return Report((), saved['counts'])
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed call
    staging.mkdir(parents=True)
    try:
        counts: dict[str, dict[str, int]] = {}
        for split, number in zip(SPLITS, (num_train, num_val), strict=True):
            drawn = track(range(number), f'Drawing {split} scenes')
            scenes = [make_scene(index, split, size, seed) for index in drawn]
            labels = Counter(instance.label for scene in scenes for instance in scene.instances)
            counts[split] = {name: labels[label] for label, name in enumerate(CLASSES)}
            for name in todo:
                LAYOUTS[name](staging / name, split, scenes)
        content = json.dumps(dict(recipe=recipe, counts=counts), indent=2, sort_keys=True)
        (staging / MARKER).write_text(content + '\n')
        (staging / MARKER).replace(marker)
        for name in todo:
            (staging / name).rename(root / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Report(tuple(todo), counts)
