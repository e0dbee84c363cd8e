"""A patch of a host package that can be undone."""

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mmengine.runner import CheckpointLoader

ABSENT = object()
"""Returned by `read_place` for a place that holds nothing."""


@dataclass
class Patch:
    """A set of objects in host packages that are replaced together.

    Args:
        name: Short name.
        why: The problem that the patch solves.
        replacements: Yields (place, new object) pairs; only those that apply to the installed
            packages. A place is an attribute (`package.module.attribute`) or an item of a mapping
            (`package.module.mapping[key]`). Each object is put in its place before the next pair
            is requested.

    Attributes:
        originals: What was in the places of an applied patch.
    """

    name: str
    why: str
    replacements: Callable[[], Iterable[tuple[str, Any]]]
    originals: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def apply(self) -> None:
        """Put the replacements in their places; applying a patch twice is the same as once."""
        for place, replacement in self.replacements():
            self.originals.setdefault(place, read_place(place))
            _write_place(place, replacement)

    def undo(self) -> None:
        """Put the original objects back; does nothing if the patch is not applied."""
        while self.originals:
            _write_place(*self.originals.popitem())


def read_place(place: str) -> Any:
    """Return the object at a place, or `ABSENT`."""
    container, key, is_item = _find(place)
    return (container if is_item else vars(container)).get(key, ABSENT)


def _write_place(place: str, value: Any) -> None:
    container, key, is_item = _find(place)
    if not is_item:
        if value is ABSENT:
            delattr(container, key)
        else:
            setattr(container, key, value)
    elif value is ABSENT:
        del container[key]
    elif container is CheckpointLoader._schemes:
        # The first prefix that matches is used, so the host keeps them sorted.
        CheckpointLoader.register_scheme(key, value, force=True)
    else:
        container[key] = value


def _find(place: str) -> tuple[Any, str, bool]:
    is_item = place.endswith(']')
    path, _, key = place[:-1].partition('[') if is_item else place.rpartition('.')
    return pkgutil.resolve_name(path), key, is_item
