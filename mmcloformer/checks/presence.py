"""Checks that the data that a config names exist, before anything is built."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import DataError, tool_command
from .channels import check_channels
from .classes import class_problems
from .coco import coco_problems
from .evaluators import check_evaluators
from .fields import evaluator_fields, leaf_fields, type_name
from .label_maps import label_map_problems
from .left_out import unused_folder
from .lists import check_lists

# Data sets of mmpretrain: those whose `split` is a folder, and those that download themselves.
_SPLIT_FOLDERS = ('ImageNet', 'ImageNet21k')
_DOWNLOADING = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """Check that the data of some splits exist and match the config.

    Args:
        cfg: The whole config.
        splits: Which of `train`, `val` and `test` to check.

    Raises:
        ConfigError: As `check_channels`.
        DataError: As `check_present`, `check_lists` and `check_evaluators`; if `class_problems` or
            `coco_problems` finds any, all of which the message lists; if mmseg or mmpretrain takes
            none of the images in a folder; or if nothing can be learned from label maps.
    """
    check_present(cfg, splits)
    check_channels(cfg, splits)
    if problems := [*class_problems(cfg, splits), *coco_problems(cfg, splits)]:
        listed = '\n'.join(f'  {problem}' for problem in problems)
        raise DataError(f'the data do not fit the config:\n{listed}')
    check_lists(cfg, splits)
    check_evaluators(cfg, splits)
    for split in splits:
        for _, leaf in leaf_fields(cfg, split):
            if problem := unused_folder(cfg, split, leaf):
                raise DataError(f'no image is left: {problem}')
    for problem in label_map_problems(cfg, splits):
        raise DataError(problem)


def check_present(cfg: Config, splits: Sequence[str]) -> None:
    """Check that the annotation files and image folders of some splits exist.

    Files on other back ends (`s3://...`) are left to the host.

    Args:
        cfg: The whole config.
        splits: Which of `train`, `val` and `test` to check.

    Raises:
        DataError: If any is missing. The message lists them with the fields that name them.
    """
    fields: dict[str, str] = {}
    for split in splits:
        for _, dataset in leaf_fields(cfg, split):
            for path in _paths(dataset):
                fields.setdefault(path, f'{split}_dataloader.dataset.data_root')
        for _, evaluator in evaluator_fields(cfg, split):
            file = evaluator.get('ann_file')
            if isinstance(file, str) and _is_local(evaluator):
                fields.setdefault(file, f'{split}_evaluator.ann_file')
    missing = [
        f'  {path}  ({field})'
        for path, field in fields.items()
        if '://' not in path and not Path(path).exists()
    ]
    if missing:
        listed = '\n'.join(missing)
        draw = tool_command('dataset_converters/make_shapes.py')
        raise DataError(
            f'data not found:\n{listed}\n'
            f'Put or link the data set there, or set the fields in brackets with --cfg-options.\n'
            f'Without data at hand, `{draw} data/shapes` '
            f'draws a small sample set for the configs in configs/demo/.'
        )


def _is_local(settings: Mapping[str, Any]) -> bool:
    """Return whether a dataset or evaluator reads its files from this machine."""
    backend = (settings.get('backend_args') or {}).get('backend', 'local')
    return backend in ('local', 'disk')


def _paths(dataset: Mapping[str, Any]) -> Iterator[str]:
    """Yield files and folders of a dataset config, joined as mmengine's BaseDataset joins them."""
    kind = type_name(dataset.get('type'))
    if not _is_local(dataset) or (kind in _DOWNLOADING and dataset.get('download', True)):
        return
    root = dataset.get('data_root') or ''
    split = dataset.get('split') if kind in _SPLIT_FOLDERS else None
    prefix = dataset.get('data_prefix') or split or {}
    parts = list(prefix.values()) if isinstance(prefix, dict) else [prefix]
    for part in [dataset.get('ann_file'), *parts]:
        if part:
            remote = '://' in f'{root}{part}'
            yield f'{root}/{part}' if remote else str(Path(root, part))
    # The host ignores the root if the folders and the annotation file have absolute paths.
    absolute = bool(parts) and all(part and Path(part).is_absolute() for part in parts)
    if root and not (absolute and Path(dataset.get('ann_file') or '/').is_absolute()):
        yield root
