"""Examines every sample of the data sets of a config before training."""

import contextlib
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from ..config import SPLITS, ConfigView, DatasetEntry
from ..errors import ConfigError, DataError, join_first
from .channels import first_image_problems
from .coco import class_names, coco_problems
from .evaluators import evaluator_problems
from .heads import head_numbers
from .labels import UNITS, absent_classes, labels_are_known, unlearnable
from .listing import build_dataset, left_out_problems, listing_problems
from .presence import check_present, config_problems
from .problem import Fault, Problem
from .samples import Expected, sample_problems
from .schedule import schedule_problems

# Maximum number of XML files that are read for the names of classes.
_MOST = 1000


class Findings(NamedTuple):
    """What an examination found.

    Attributes:
        samples: Number of samples examined, by split.
        problems: Bad files, each with what is wrong and what to do.
        warnings: What may be intended, such as classes without a label and samples left out.
    """

    samples: dict[str, int]
    problems: list[Problem]
    warnings: list[Problem]


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
    view = ConfigView(cfg)
    splits = [split for split in SPLITS if view.loader(split)]
    if view.loader('test').get('dataset') == view.loader('val').get('dataset'):
        splits = [split for split in splits if split != 'test' or 'val' not in splits]
    check_present(cfg, splits)
    init_default_scope(view.host or 'mmengine')
    samples: dict[str, int] = {}
    problems = [
        *config_problems(view, splits),
        *evaluator_problems(view, SPLITS),
        *coco_problems(view, splits, thorough=True),
        *listing_problems(view, splits),
    ]
    for split in splits:
        problems += _split_problems(view, split, workers, samples, problems)
    if 'train' in splits:
        problems += schedule_problems(view, samples['train'])
    problems = list(dict.fromkeys(problems))
    return Findings(
        samples,
        [each for each in problems if each.severity == 'error'],
        [each for each in problems if each.severity == 'warning'],
    )


def _split_problems(
    view: ConfigView,
    split: str,
    workers: int,
    samples: dict[str, int],
    known: Sequence[Problem],
) -> list[Problem]:
    """Examine one split, and count its samples.

    What is known of a data set explains why the host cannot build it, or why it has no labels.
    """
    host, where = view.host, f'{split}_dataloader.dataset'
    explained = {each.field for each in known if each.severity == 'error'}
    leaves = list(view.datasets(split))
    built: list[tuple[DatasetEntry, BaseDataset]] = []
    problems: list[Problem] = []
    for leaf in leaves:
        field = leaf.entry.field
        try:
            dataset = _build(view, leaf)
            if isinstance(dataset, BaseDataset):
                built.append((leaf, dataset))
                problems += left_out_problems(view, leaf, len(dataset))
            else:
                kind = type(dataset).__name__
                problems.append(Problem(field, f'a {kind} is not examined', '', severity='warning'))
        except DataError as error:
            if not any(each.startswith(field) for each in explained):
                problems.append(Problem(field, *_unbuilt_fault(view, leaf, str(error))))
    counts: Counter[int] = Counter()
    for leaf, dataset in built:
        expected = Expected(
            leaf.entry.field, _num_classes(view, dataset), view.ignored_labels(split)
        )
        found = [*_examine(dataset, expected, workers, split, counts)]
        problems += found
        # The whole pipeline runs on good files only: a bad mask can take all memory.
        if not any(each.severity == 'error' for each in found):
            problems += first_image_problems(view, split, dataset)
    samples[split] = sum(len(dataset) for _, dataset in built)
    names = _class_names(view, built[0][1]) if built and _labels_are_used(view, leaves) else []
    if names and host:
        partial = any(dataset._indices is not None for _, dataset in built)
        unusable = [*unlearnable(host, split, counts, len(names), partial)]
        if not unusable:
            annotated = {name for leaf, _ in built for name in _annotated_names(view, leaf)}
            problems += absent_classes(host, split, counts, names, annotated)
        elif not any(each.startswith(where) for each in explained):
            problems += unusable
    complete = built and len(built) == len(leaves)
    if host == 'mmdet' and split != 'test' and complete and not any(map(_has_objects, built)):
        problems.append(Problem(where, *_no_objects_fault(view, leaves)))
    return problems


def _build(view: ConfigView, leaf: DatasetEntry) -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # pycocotools prints.
            dataset = build_dataset(view, leaf.entry.settings)
            if isinstance(dataset, BaseDataset):
                dataset.full_init()
    except Exception as error:  # Any error of the host is a finding.
        # Raised when mmengine serialises an empty list.
        empty = 'at least one array' in str(error)
        raise DataError('' if empty else f'the host cannot read it ({error!r})') from error
    if not len(dataset):
        raise DataError('')
    return dataset


def _unbuilt_fault(view: ConfigView, leaf: DatasetEntry, error: str) -> Fault:
    if error:
        return Fault(error, 'correct the annotation file, or the settings of the data set')
    named = _foreign_names_fault(view, [leaf])
    return named or Fault(
        'the host finds no samples in it',
        'images without any object are left out of training: label some, or look at filter_cfg',
    )


def _no_objects_fault(view: ConfigView, leaves: Sequence[DatasetEntry]) -> Fault:
    if fault := _foreign_names_fault(view, leaves):
        return fault
    if all(hasattr(leaf.entry.kind, 'COCOAPI') for leaf in leaves):
        form = 'a box is [x, y, width, height] in pixels'
    else:
        form = 'write the names of metainfo.classes as in the annotations; a box is in pixels'
    return Fault(
        'the host leaves out every object',
        f'{form}, at least one pixel wide and high, and overlaps the image',
    )


def _foreign_names_fault(view: ConfigView, leaves: Sequence[DatasetEntry]) -> Fault | None:
    """Return that no object has one of the classes, if the annotations are known to have others."""
    names = [name for leaf in leaves for name in class_names(leaf.entry)]
    annotated = {name for leaf in leaves for name in _annotated_names(view, leaf)}
    if not annotated or annotated & set(names):
        return None
    return Fault(
        f'the host leaves out every object: none is one of metainfo.classes ({join_first(names)}), '
        f'the annotations name {join_first(sorted(annotated))}',
        'write the classes as there',
    )


def _annotated_names(view: ConfigView, leaf: DatasetEntry) -> set[str]:
    """Return the names of objects in XML files; other formats are checked elsewhere, or unknown."""
    names: set[str] = set()
    with contextlib.suppress(Exception):  # What cannot be read is reported by itself.
        from mmdet.datasets import XMLDataset

        if leaf.entry.is_a(XMLDataset):
            dataset: Any = view.build_lazily(leaf.entry)
            for info in dataset.load_data_list()[:_MOST]:
                content = fileio.get(info['xml_path'], backend_args=dataset.backend_args)
                names.update(
                    str(each.findtext('name')) for each in ET.fromstring(content).iter('object')
                )
    return names


def _labels_are_used(view: ConfigView, leaves: Sequence[DatasetEntry]) -> bool:
    """Return whether a model learns the labels that the loading steps give."""
    if view.host == 'mmpretrain':
        return bool([*head_numbers(view)])  # Pre-training without labels has no such head.
    if view.host == 'mmseg':
        return all(labels_are_known(leaf.steps) for leaf in leaves)
    return view.host in UNITS


def _num_classes(view: ConfigView, dataset: BaseDataset) -> int | None:
    if view.host == 'mmdet':
        return None
    classes = dataset.metainfo.get('classes')
    numbers = [number.classes for number in head_numbers(view)]
    return min([*numbers, len(classes)] if classes else numbers, default=None)


def _class_names(view: ConfigView, dataset: BaseDataset) -> list[str]:
    """Return the names of the labels that `class_counts` counts; none for panoptic data."""
    classes = dataset.metainfo.get('classes') or range(_num_classes(view, dataset) or 0)
    return [] if 'thing_classes' in dataset.metainfo else [*map(str, classes)]


def _has_objects(built: tuple[DatasetEntry, BaseDataset]) -> bool:
    dataset = built[1]
    return any(dataset.get_data_info(i).get('instances', True) for i in range(len(dataset)))


class _Examined(Dataset[tuple[list[Problem], Counter[int]]]):
    def __init__(self, dataset: BaseDataset, expected: Expected) -> None:
        self._dataset = dataset
        self._expected = expected

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[list[Problem], Counter[int]]:
        counts: Counter[int] = Counter()
        return list(sample_problems(self._dataset, index, self._expected, counts)), counts


def _examine(
    dataset: BaseDataset, expected: Expected, workers: int, split: str, counts: Counter[int]
) -> Iterator[Problem]:
    """Examine all samples in worker processes, as decoding masks holds the GIL."""
    samples = DataLoader(
        _Examined(dataset, expected),
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
