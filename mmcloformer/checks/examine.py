"""Examines every sample of the data sets of a config before training."""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from ..config import ConfigView, are_in_hosts
from ..errors import ConfigError, DataError
from .annotations import annotation_problems, evaluator_problems
from .channels import channel_problems, first_image_problems
from .classes import class_problems
from .coco import dataset_problems
from .evaluators import evaluator_misfits
from .heads import head_numbers
from .learnable import UNITS, absent_classes, unlearnable
from .left_out import filtered_samples, left_out_files, unused_folder
from .lists import list_problems
from .presence import check_present
from .problem import Problem, render
from .sample import sample_problems
from .schedule import epoch_samples, schedule_problems

_EMPTY = 'the host finds no samples in it; images without any object are left out of training'
_NO_OBJECTS = (
    'the host leaves out every object: a box is [x, y, width, height] in pixels, at least one '
    'pixel wide and high, and overlaps the image'
)


class Findings(NamedTuple):
    """What an examination found.

    Attributes:
        samples: Number of samples examined, by split.
        problems: Bad files, each with what is wrong and what to do.
        warnings: What may be meant, such as classes without a label and samples left out.
    """

    samples: dict[str, int]
    problems: list[str]
    warnings: list[str]


def check_dataset(cfg: Config, workers: int) -> Findings:
    """Examine annotation files, then load every sample of the splits that the config has.

    The hosts' own classes list the samples and load them. A test split that is the validation
    split is not examined twice.

    Args:
        cfg: The whole config.
        workers: Number of worker processes; 0 loads in this process.

    Raises:
        ConfigError: If the number of processes is negative.
        DataError: As `check_present`.
    """
    if workers < 0:
        raise ConfigError(f'workers is {workers}; give a number of worker processes, or 0 for none')
    datasets = {
        split: cfg[f'{split}_dataloader'].dataset
        for split in ('train', 'val', 'test')
        if cfg.get(f'{split}_dataloader')
    }
    if datasets.get('test') == datasets.get('val'):
        datasets.pop('test', None)
    check_present(cfg, tuple(datasets))
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    samples: dict[str, int] = {}
    view = ConfigView(cfg)
    misfits = [*class_problems(view, tuple(datasets))]
    problems = render([*channel_problems(view, tuple(datasets)), *misfits])
    warnings: list[str] = []
    for split, dataset in datasets.items():
        problems += _split_problems(cfg, split, dataset, workers, samples, misfits, warnings)
    same = cfg.get('test_evaluator') == cfg.get('val_evaluator') and 'test' not in datasets
    for split in ('val',) if same else ('val', 'test'):
        problems += evaluator_misfits(cfg, split)
    if 'train' in datasets:
        length = epoch_samples(datasets['train'], samples['train'])
        for found, new in zip((problems, warnings), schedule_problems(cfg, length), strict=True):
            found += new
    return Findings(samples, list(dict.fromkeys(problems)), list(dict.fromkeys(warnings)))


def _split_problems(
    cfg: Config,
    split: str,
    dataset: Mapping[str, Any],
    workers: int,
    samples: dict[str, int],
    class_misfits: list[Problem],
    warnings: list[str],
) -> Iterator[str]:
    """Examine one split, and count its samples."""
    detection = cfg.get('default_scope') == 'mmdet'
    view = ConfigView(cfg)
    loader = f'{split}_dataloader.'
    misfit_of_classes = any(misfit.field.startswith(loader) for misfit in class_misfits)
    leaves = [each.entry.settings for each in view.datasets(split)]
    built = []
    explained = misfit_of_classes
    for leaf in leaves:
        misfits: list[str] = []
        if detection:
            misfits = list(dataset_problems(cfg, split, leaf, images=False, warnings=warnings))
        elif unused := unused_folder(cfg, split, leaf):
            misfits = [f'no image is left: {unused}']
        misfits += list_problems(cfg, split, leaf)
        yield from misfits
        explained = explained or bool(misfits)
        try:
            loaded = _build(leaf)
            if not isinstance(loaded, BaseDataset):
                kind = type(loaded).__name__
                warnings.append(f'{split}_dataloader.dataset: a {kind} is not examined')
                continue
            built.append(loaded)
            warnings += _left_out(cfg, split, leaf, loaded)
        except DataError as error:
            if misfits or misfit_of_classes:  # They explain the failure.
                continue
            file = os.path.join(leaf.get('data_root') or '', leaf.get('ann_file') or '')
            local = detection and file.endswith('.json') and Path(file).is_file()
            causes = list(annotation_problems(Path(file))) if local else []
            where = f'{file} ({split}_dataloader.dataset)'
            yield from (f'{where}: {cause}' for cause in causes or [str(error)])
    counts: Counter[int] = Counter()
    for each in built:
        found = [*_examine(each, _num_classes(cfg, each), workers, split, counts)]
        # The whole pipeline runs on good files only: a bad mask can take all memory.
        yield from found or render(first_image_problems(view, split, each))
    samples[split] = sum(map(len, built))
    scope = cfg.get('default_scope')
    names = _class_names(cfg, built[0]) if built and _labels_are_used(view, split) else None
    if names:
        partial = any(each._indices is not None for each in built)
        unusable = [*unlearnable(scope, split, counts, len(names), partial)]
        yield from [] if explained else unusable
        warnings += [] if unusable else absent_classes(scope, split, counts, names)
    if detection and len(built) == len(leaves):
        if split != 'test' and not any(map(_has_objects, built)):
            yield f'{split}_dataloader.dataset: {_NO_OBJECTS}'
        yield from evaluator_problems(cfg, split)


def _labels_are_used(view: ConfigView, split: str) -> bool:
    """Return whether a model learns the labels that the loading steps give."""
    if view.host == 'mmpretrain':
        return bool([*head_numbers(view)])  # Pre-training without labels has no such head.
    if view.host == 'mmseg':  # A step of the user's own may change them.
        return all(are_in_hosts(each.steps) for each in view.datasets(split))
    return view.host in UNITS


def _build(leaf: Mapping[str, Any]) -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # pycocotools prints.
            dataset = DATASETS.build(leaf)
            if isinstance(dataset, BaseDataset):
                dataset.full_init()
    except Exception as error:  # Any error of the host is a finding.
        empty = 'at least one array' in str(error)  # Raised when mmengine serialises an empty list.
        raise DataError(_EMPTY if empty else f'the host cannot read it ({error!r})') from error
    if not len(dataset):
        raise DataError(_EMPTY)
    return dataset


def _num_classes(cfg: Config, dataset: BaseDataset) -> int | None:
    if cfg.get('default_scope') == 'mmdet':
        return None
    classes = dataset.metainfo.get('classes')
    numbers = [number.classes for number in head_numbers(ConfigView(cfg))]
    return min([*numbers, len(classes)] if classes else numbers, default=None)


def _class_names(cfg: Config, dataset: BaseDataset) -> list[str]:
    """Return the names of the labels that `class_counts` counts; none for panoptic data."""
    classes = dataset.metainfo.get('classes') or range(_num_classes(cfg, dataset) or 0)
    return [] if 'thing_classes' in dataset.metainfo else [*map(str, classes)]


def _has_objects(dataset: BaseDataset) -> bool:
    return any(dataset.get_data_info(i).get('instances', True) for i in range(len(dataset)))


class _Examined(Dataset[tuple[list[str], Counter[int]]]):
    def __init__(self, dataset: BaseDataset, num_classes: int | None) -> None:
        self._dataset = dataset
        self._num_classes = num_classes

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[list[str], Counter[int]]:
        counts: Counter[int] = Counter()
        return list(sample_problems(self._dataset, index, self._num_classes, counts)), counts


def _examine(
    dataset: BaseDataset,
    num_classes: int | None,
    workers: int,
    split: str,
    counts: Counter[int],
) -> Iterator[str]:
    """Examine all samples in worker processes, as decoding masks holds the GIL."""
    samples = DataLoader(
        _Examined(dataset, num_classes),
        batch_size=None,
        num_workers=workers,
        collate_fn=_uncollated,
        prefetch_factor=16 if workers else None,
    )
    try:
        for found, labels in track(
            samples, split, total=len(dataset), console=Console(stderr=True)
        ):
            yield from found
            counts.update(labels)
    except RuntimeError as error:
        if 'DataLoader worker' not in str(error):
            raise
        raise DataError(
            f'a process that examines {split}_dataloader.dataset was ended from outside, often for '
            'want of memory; --workers 1 needs the least, and --workers 0 examines the files in '
            'the order of the data set'
        ) from error


def _uncollated(sample: Any) -> Any:
    return sample


def _left_out(
    cfg: Config, split: str, leaf: Mapping[str, Any], built: BaseDataset
) -> Iterator[str]:
    """Yield which samples the host leaves out, but for those of COCO files."""
    scope = cfg.get('default_scope')
    if scope == 'mmdet' and not hasattr(built, 'COCOAPI'):
        if out := filtered_samples(scope, leaf, len(built)):
            yield f'{split}_dataloader.dataset: {out}'
    elif out := left_out_files(cfg, split, leaf):
        yield out
