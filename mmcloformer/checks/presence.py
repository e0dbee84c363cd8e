"""Checks that the data that a config names exist and fit the config, before anything is built."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config import ConfigView, DatasetEntry, is_in_hosts
from ..errors import DataError, tool_command
from .channels import channel_problems
from .classes import class_problems
from .coco import coco_problems
from .evaluators import evaluator_problems
from .heads import ignored_label_problems
from .labels import label_map_problems
from .listing import listing_problems
from .problem import Problem, render
from .schedule import loop_problems


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """Check that the data of some splits exist and match the config.

    Args:
        cfg: The whole config.
        splits: Which of `train`, `val` and `test` to check.

    Raises:
        DataError: If anything is missing or does not fit; the message lists all that is found.
    """
    check_present(cfg, splits)
    view = ConfigView(cfg)
    problems = [
        *config_problems(view, splits),
        *evaluator_problems(view, splits),
        *coco_problems(view, splits),
        *listing_problems(view, splits),
        *label_map_problems(view, splits),
    ]
    for warning in render(each for each in problems if each.severity == 'warning'):
        print(f'warning: {warning}', file=sys.stderr)
    if errors := render(each for each in problems if each.severity == 'error'):
        listed = '\n'.join(f'  {problem}' for problem in errors)
        raise DataError(f'the data do not fit the config:\n{listed}')


def config_problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield which fields of a config contradict each other.

    Args:
        view: The config.
        splits: Which of `train`, `val` and `test` to check.
    """
    yield from channel_problems(view, splits)
    yield from class_problems(view, splits)
    yield from ignored_label_problems(view)
    yield from loop_problems(view, splits)


def check_present(cfg: Config, splits: Sequence[str]) -> None:
    """Check that the annotation files and image folders of some splits exist.

    Args:
        cfg: The whole config.
        splits: Which of `train`, `val` and `test` to check.

    Raises:
        DataError: As `missing_files`; the message lists them all.
    """
    if missing := render(missing_files(ConfigView(cfg), splits)):
        listed = '\n'.join(f'  {problem}' for problem in missing)
        draw = tool_command('dataset_converters/make_shapes.py')
        raise DataError(
            f'data not found:\n{listed}\n'
            'Put or link the data there, or set these fields with --cfg-options. Without data at '
            f'hand, `{draw} data/shapes` draws a small sample set for the configs in configs/demo/.'
        )


def missing_files(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield the files and folders that do not exist.

    The data sets themselves say where they look. Files on other back ends (`s3://...`,
    `backend_args`), what the user's own metrics and steps read, and data sets that download their
    files or list their samples with code of the user's own are left to the host.

    Args:
        view: The config.
        splits: Which of `train`, `val` and `test` to check.
    """
    paths: dict[str, str] = {}
    for found in view.datasets(*splits):
        for field, path in _paths(view, found):
            paths.setdefault(path, field)
    for evaluator in view.evaluators(*splits):
        file = evaluator.settings.get('ann_file')
        is_read = is_in_hosts(evaluator.kind) and not evaluator.settings.get('backend_args')
        if isinstance(file, str) and is_read:
            paths.setdefault(file, f'{evaluator.field}.ann_file')
    for path, field in paths.items():
        if '://' not in path and not Path(path).exists():
            yield Problem(field, f'{path} does not exist', '')


def _paths(view: ConfigView, found: DatasetEntry) -> Iterator[tuple[str, str]]:
    """Yield fields and paths of a data set; only the root if that does not exist."""
    entry = found.entry
    dataset: Any = view.build_lazily(entry)
    if dataset is None or getattr(dataset, 'download', False) or entry.settings.get('backend_args'):
        return
    listing = ('full_init', 'load_data_list', '_find_samples')
    if not all(is_in_hosts(getattr(entry.kind, name, entry.kind.full_init)) for name in listing):
        return
    root = str(dataset.data_root or '')
    paths = [('ann_file', dataset.ann_file)]
    has_labels = any(map(view.loads_label_maps, found.steps))
    if found.is_local:
        folders = dataset.data_prefix.items()
        # Nothing else loads label maps.
        needed = (path for key, path in folders if has_labels or not key.startswith('seg'))
        paths += [('data_prefix', path) for path in needed]
    inside = any(root and str(path).startswith(root) for _, path in paths)
    if inside and '://' not in root and not Path(root).exists():
        paths = [('data_root', root)]
    yield from ((f'{entry.field}.{key}', str(path)) for key, path in paths if path)
