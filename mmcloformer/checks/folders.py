"""Finds the class folders of mmpretrain's `CustomDataset`, which numbers them in sorted order."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..config import ConfigView, Entry
from ..errors import join_first
from .problem import Problem


class Folders(NamedTuple):
    """Class folders of a data set.

    Attributes:
        root: Folder that holds them.
        names: Their names in sorted order; the position is the label. Without hidden ones.
        filled: Those with images.
        hidden: Hidden folders, which the host takes for classes too.
    """

    root: str
    names: tuple[str, ...]
    filled: frozenset[str]
    hidden: tuple[str, ...]


def find_folders(view: ConfigView, dataset: Entry) -> Folders | None:
    """Find the class folders of a data set, or return None if its labels come from elsewhere.

    Args:
        view: The config.
        dataset: The data set, not a wrapper.
    """
    from mmpretrain.datasets import CustomDataset

    methods = ('load_data_list', '_find_samples')
    keys = ('data_root', 'data_prefix', 'ann_file')
    remote = any('://' in str(dataset.settings.get(key)) for key in keys)
    if remote or not dataset.is_a(CustomDataset):
        return None
    if any(getattr(dataset.kind, name) is not getattr(CustomDataset, name) for name in methods):
        return None
    built: Any = view.build_lazily(dataset)
    if built is None:
        return None
    if built.ann_file or not built.with_label or not os.path.isdir(built.img_prefix):
        return None
    root = built.img_prefix
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    shown = tuple(name for name in names if not name.startswith('.'))
    filled = (name for name in shown if _has_files(Path(root, name), built.is_valid_file))
    hidden = tuple(name for name in names if name.startswith('.'))
    return Folders(root, shown, frozenset(filled), hidden) if names else None


def hidden_problems(folders: Folders, field: str) -> Iterator[Problem]:
    """Yield the hidden folders, such as `.ipynb_checkpoints`.

    Args:
        folders: Class folders of a data set.
        field: Name of the field with the data set's config.
    """
    for name in folders.hidden:
        yield Problem(
            field,
            'a hidden folder, which the host takes for a class; that changes the labels of the '
            'others',
            'remove it',
            str(Path(folders.root, name)),
        )


def shift_problem(folders: Folders, trained: Folders, field: str) -> Problem | None:
    """Return which classes of a data set have another label in the training set.

    Args:
        folders: Class folders of the data set.
        trained: Class folders of the training set.
        field: Name of the field with the data set's config.

    Returns:
        The problem, or None. Empty folders that change no label do no harm.
    """
    labels = {name: label for label, name in enumerate(trained.names)}
    for label, name in enumerate(folders.names):
        if name in folders.filled and labels.get(name) != label:
            known = f'the label {labels[name]}' if name in labels else 'no label'
            differences = [
                f'only in {one.root}: {join_first(_described(one, only))}'
                for one, other in ((folders, trained), (trained, folders))
                if (only := [each for each in one.names if each not in other.names])
            ]
            return Problem(
                field,
                f'{folders.root} holds other class folders than {trained.root}. Labels are '
                f'positions in sorted order, so {name} has the label {label} there and {known} in '
                f'training. {"; ".join(differences)}',
                'rename or remove these, or add an empty folder where one has no images',
            )
    return None


def misnamed(names: tuple[str, ...], folders: Folders) -> int | None:
    """Return the first folder whose class has the name of another folder, or None.

    Args:
        names: Class names by label.
        folders: Class folders.
    """
    known = [folder.casefold() for folder in folders.names]
    for label, (name, folder) in enumerate(zip(names, known, strict=False)):
        if str(name).casefold() != folder and str(name).casefold() in known:
            return label
    return None


def _described(folders: Folders, names: list[str]) -> list[str]:
    return [name if name in folders.filled else f'{name} (no images)' for name in names]


def _has_files(folder: Path, is_valid: Callable[[str], bool]) -> bool:
    folders = []
    try:
        with os.scandir(folder) as entries:  # Unlike os.walk, it stops at the first image.
            for entry in entries:
                if entry.is_dir():
                    folders.append(Path(entry))
                elif is_valid(entry.name) and not entry.name.startswith('.'):  # As the host.
                    return True
    except OSError:  # The host skips what it cannot list.
        return False
    return any(_has_files(each, is_valid) for each in folders)
