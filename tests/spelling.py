"""The ways in which a config may name a class."""

from importlib import import_module
from typing import Any

SPELLINGS = ('name', 'scoped', 'path', 'itself')


def spell(host: str, registry: str, name: str, spelling: str) -> Any:
    """Return a `type` for a class of a host.

    Args:
        host: Name of the host.
        registry: Name of its registry, such as `DATASETS`.
        name: Name of the class.
        spelling: One of `SPELLINGS`; `itself` is the class, as in pure-Python configs.
    """
    kind = getattr(import_module(f'{host}.registry'), registry).get(name)
    return dict(
        name=name,
        scoped=f'{host}.{name}',
        path=f'{kind.__module__}.{kind.__qualname__}',
        itself=kind,
    )[spelling]
