"""Writes the "shapes" data set once, atomically, and never over other data."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from ..errors import ConfigError, DataError
from .layouts import LAYOUTS
from .shapes import CLASSES, SPLITS, VERSION, make_scene, make_scenes

MARKER = '.mmcloformer-shapes.json'
_MARKER_DRAFT = f'{MARKER}.draft'
_STAGING = '.mmcloformer-shapes.partial'

_SceneCounts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Report:
    """Contents of a data set and what was written.

    Attributes:
        root: Top folder of the data set.
        written: Layouts written by this call; empty when all was up to date.
        counts: Number of objects by split and class.
    """

    root: Path
    written: tuple[str, ...]
    counts: _SceneCounts


def write_shapes(
    root: str | Path,
    layouts: Iterable[str] = tuple(LAYOUTS),
    num_train: int = 800,
    num_val: int = 100,
    size: int = 128,
    seed: int = 0,
) -> Report:
    """Write the data set, one folder per layout, unless it already exists.

    A marker file in `root` holds the arguments and a digest of every layout. A layout appears
    under its own name only once it is complete, and nothing but an unchanged layout written
    earlier is ever removed, so neither a killed call nor a wrong `root` can do harm.

    Args:
        root: Folder to write to. It may be missing, empty, or an earlier data set.
        layouts: Names from `LAYOUTS`. With other arguments than before, layouts that are not
            named are removed; with the same ones they stay.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        size: Height and width of a scene in pixels.
        seed: Seed of the data set.

    Returns:
        What was written and the number of objects in the data set.

    Raises:
        ConfigError: If an argument is out of range or a layout is unknown.
        DataError: If `root` holds other data or is a file, or a layout was changed since.
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

    recipe = {
        'version': VERSION,
        'num_train': num_train,
        'num_val': num_val,
        'size': size,
        'seed': seed,
    }
    marker = _claim(root)
    staging = root / _STAGING
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed call
    digests: dict[str, str] = marker['layouts']
    same = marker['recipe'] == recipe
    for name in wanted if same else {*wanted, *digests}:
        _check_own(root / name, digests.get(name))
    todo = [name for name in wanted if not (same and (root / name).exists())]
    if not todo:
        return Report(root, (), marker['counts'])

    try:
        counts = _build(staging, todo, {'train': num_train, 'val': num_val}, size, seed)
        if not same:
            _retire(root, digests, staging)
            digests = {}
        built = {name: _digest(staging / name) for name in todo}
        # From here on the marker knows the new layouts; one that is still missing gets rebuilt.
        _write_marker(root, {'recipe': recipe, 'counts': counts, 'layouts': {**digests, **built}})
        for name in todo:
            os.rename(staging / name, root / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Report(root, tuple(todo), counts)


def _claim(root: Path) -> dict[str, Any]:
    """Read the marker of `root`, or put a first one there if the folder is missing or empty."""
    if root.exists() and not root.is_dir():
        raise DataError(f'{root} is a file; name a new or empty folder')
    root.mkdir(parents=True, exist_ok=True)
    marker_file = root / MARKER
    if marker_file.exists():
        marker: dict[str, Any] = json.loads(marker_file.read_text())
        return marker
    if any(entry.name != _MARKER_DRAFT for entry in root.iterdir()):
        raise DataError(
            f'{root} is not empty and was not written by mmcloformer (it has no {MARKER}); '
            'name a new or empty folder'
        )
    marker = {'recipe': None, 'counts': {}, 'layouts': {}}
    _write_marker(root, marker)
    return marker


def _write_marker(root: Path, marker: dict[str, Any]) -> None:
    draft = root / _MARKER_DRAFT
    draft.write_text(json.dumps(marker, indent=2, sort_keys=True) + '\n')
    os.replace(draft, root / MARKER)


def _check_own(folder: Path, digest: str | None) -> None:
    """Raise if a folder exists and differs from what this module wrote."""
    if folder.exists() and _digest(folder) != digest:
        raise DataError(
            f'{folder} holds files that mmcloformer did not write or that were changed since; '
            'move or delete it, then run this again'
        )


def _build(
    staging: Path, layouts: list[str], numbers: dict[str, int], size: int, seed: int
) -> _SceneCounts:
    counts: _SceneCounts = {}
    for split in SPLITS:
        writers = [LAYOUTS[name](staging / name, split) for name in layouts]
        found: Counter[str] = Counter()
        scenes = make_scenes(numbers[split], split, size, seed)
        for scene in track(scenes, f'Drawing {split} scenes', total=numbers[split]):
            found.update(CLASSES[instance.label] for instance in scene.instances)
            for writer in writers:
                writer.add(scene)
        for writer in writers:
            writer.close()
        counts[split] = {name: found[name] for name in CLASSES}
    return counts


def _retire(root: Path, layouts: Iterable[str], staging: Path) -> None:
    """Move outdated layouts away by one rename each, so that none is ever incomplete."""
    for name in layouts:
        if (root / name).exists():
            os.rename(root / name, staging / f'old-{name}')


def _digest(folder: Path) -> str:
    """Digest of the names and contents of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        total.update(path.relative_to(folder).as_posix().encode() + b'\0')
        if path.is_file():
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
