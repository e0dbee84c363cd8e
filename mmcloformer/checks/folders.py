"""Finds the class folders of mmpretrain's `CustomDataset`, which numbers them in sorted order."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import join_first


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


def find_folders(kind: type, dataset: Mapping[str, Any]) -> Folders | None:
    """Find the class folders of a data set, or return None if its labels come from elsewhere.

    Args:
        kind: Class of the data set.
        dataset: Config of the data set, not a wrapper's.
    """
    from mmpretrain.datasets import CustomDataset

    methods = ('load_data_list', '_find_samples')
    remote = any('://' in str(dataset.get(key)) for key in ('data_root', 'data_prefix', 'ann_file'))
    if remote or not issubclass(kind, CustomDataset):
        return None
    if any(getattr(kind, name) is not getattr(CustomDataset, name) for name in methods):
        return None
    # mmengine adds `_scope_` to what a config inherits from a host.
    left_out = ('type', 'pipeline', '_scope_')
    settings = {key: value for key, value in dataset.items() if key not in left_out}
    settings |= dict(metainfo=None, classes=None, lazy_init=True)
    try:
        built = kind(**settings)
    except Exception:  # Any error of the host is reported when it builds the data set.
        return None
    if built.ann_file or not built.with_label or not os.path.isdir(built.img_prefix):
        return None
    root = built.img_prefix
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    shown = tuple(name for name in names if not name.startswith('.'))
    filled = (name for name in shown if _has_files(Path(root, name), built.is_valid_file))
    hidden = tuple(name for name in names if name.startswith('.'))
    return Folders(root, shown, frozenset(filled), hidden) if names else None


def hidden_problems(folders: Folders, field: str) -> Iterator[str]:
    """Yield the hidden folders, such as `.ipynb_checkpoints`.

    Args:
        folders: Class folders of a data set.
        field: Name of the field with the data set's config.
    """
    for name in folders.hidden:
        yield (
            f'{Path(folders.root, name)} ({field}) is a hidden folder, but the host takes it for a '
            'class, which changes the labels of the others; remove it'
        )


def shift_problem(folders: Folders, trained: Folders, field: str) -> str | None:
    """Return which classes of a data set have another label in the training set.

    Args:
        folders: Class folders of the data set.
        trained: Class folders of the training set.
        field: Name of the field with the data set's config.

    Returns:
        The reason and what to do, or None. Empty folders that change no label do no harm.
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
            return (
                f'{folders.root} ({field}) holds other class folders than {trained.root}; labels '
                f'are positions in sorted order, so {name} has the label {label} there and '
                f'{known} in training. {"; ".join(differences)}. Rename or remove these, or add '
                'an empty folder where one has no images'
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
