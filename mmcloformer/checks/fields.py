"""Reads what fields of a config name: data sets inside of wrappers, evaluators, hosts' classes."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from mmengine.config import Config


def leaf_fields(cfg: Config, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the data sets of a split, also those inside of wrappers such as ConcatDataset.

    Args:
        cfg: The whole config.
        split: `train`, `val` or `test`.

    Yields:
        The name of the field with a data set's config, and the config.
    """
    name = f'{split}_dataloader'
    yield from _leaves((cfg.get(name) or {}).get('dataset'), f'{name}.dataset')


def leaf_datasets(dataset: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the configs of the datasets inside wrappers such as ConcatDataset.

    Args:
        dataset: The config of a dataset or wrapper, or None.
    """
    yield from (leaf for _, leaf in _leaves(dataset, ''))


def evaluator_fields(cfg: Config, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the evaluators of a split.

    Args:
        cfg: The whole config.
        split: `train`, `val` or `test`.

    Yields:
        The name of the field with an evaluator's config, and the config.
    """
    name = f'{split}_evaluator'
    evaluators = cfg.get(name) or []
    if isinstance(evaluators, Mapping):
        yield name, evaluators
    elif isinstance(evaluators, Sequence):
        several = enumerate(evaluators)
        yield from ((f'{name}.{i}', each) for i, each in several if isinstance(each, Mapping))


def find_class(kind: Any, scope: str, registry: str) -> Any:
    """Return the class that a `type` names, or None if the host has no such class.

    Args:
        kind: The name, or the class itself.
        scope: The host.
        registry: Name of the host's registry, such as `DATASETS`.
    """
    if not isinstance(kind, str):
        return kind
    return getattr(import_module(f'{scope}.registry'), registry).get(kind)


def type_name(kind: Any) -> str:
    """Return the name of a class that is given by itself or by name, without its scope.

    Args:
        kind: The class or its name; anything else has an empty name.
    """
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]


def _leaves(dataset: Any, field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(dataset, Mapping) or not dataset:
        return
    several = enumerate(dataset.get('datasets') or [])
    inner = [(f'{field}.datasets.{i}', each) for i, each in several]
    if dataset.get('dataset'):
        inner.append((f'{field}.dataset', dataset['dataset']))
    if not inner:
        yield field, dataset
    for name, each in inner:
        yield from _leaves(each, name)
