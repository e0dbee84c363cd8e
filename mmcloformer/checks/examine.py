"""Examines every sample of the data sets of a config before training."""

import contextlib
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from ..config import SPLITS, ConfigView, DatasetEntry
from ..errors import ConfigError, DataError, join_first
from .channels import first_image_problems
from .coco import coco_problems
from .evaluators import evaluator_problems
from .image import error_text
from .labels import class_number, count_problems, ignored_values
from .listing import filter_problems, listing_problems
from .presence import check_present, config_problems
from .problem import Fault, Problem
from .samples import Expected, examine_sample
from .schedule import schedule_problems

# Maximum number of XML files that are read for the names of classes.
_MOST = 1000
# In mmengine's error about a data set without samples, which it cannot serialise.
_NO_SAMPLES = 'at least one array'


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
    if not any(view.datasets(*splits)):
        raise ConfigError('the config has no data set to check: it needs a train_dataloader')
    check_present(cfg, splits)
    init_default_scope(view.scope)
    problems = [
        *config_problems(view, splits),
        *evaluator_problems(view, SPLITS),
        *coco_problems(view, splits, find_images=False),
        *listing_problems(view, splits, count_all=True),
    ]
    wrong = [each.field for each in problems if each.severity == 'error']
    samples: dict[str, int] = {}
    for split in splits:
        samples[split], found = _examine_split(view, split, workers, wrong)
        problems += found
    if 'train' in splits:
        problems += schedule_problems(view, samples['train'])
    problems = list(dict.fromkeys(problems))
    return Findings(
        samples,
        [each for each in problems if each.severity == 'error'],
        [each for each in problems if each.severity == 'warning'],
    )


def _examine_split(
    view: ConfigView, split: str, workers: int, wrong: Sequence[str]
) -> tuple[int, list[Problem]]:
    """Load every sample of a split.

    Args:
        view: The config.
        split: `train`, `val` or `test`.
        workers: Number of worker processes.
        wrong: Fields with known problems, which explain why a data set cannot be built, or has no
            labels.

    Returns:
        The number of samples, and the problems.
    """
    leaves = list(view.datasets(split))
    annotated = {name for leaf in leaves for name in _annotated_names(view, leaf)}
    problems: list[Problem] = []
    built: list[BaseDataset] = []
    counts: Counter[int] = Counter()
    for leaf in leaves:
        field = leaf.entry.field
        explained = any(f'{each}.'.startswith(f'{field}.') for each in wrong)
        try:
            dataset = _build(view, leaf)
        except Exception as error:  # Any error of the host is a finding.
            fault = Fault(
                f'the host cannot read it ({error_text(error)})',
                'correct the annotation file, or the settings of the data set',
            )
            if _NO_SAMPLES in str(error):
                fault = _empty_fault(view, [leaf], annotated, 'the host finds no samples in it')
            if not explained:
                problems.append(Problem(field, *fault))
            continue
        if not isinstance(dataset, BaseDataset):
            found = f'a {type(dataset).__name__} is not examined'
            problems.append(Problem(field, found, '', severity='warning'))
            continue
        built.append(dataset)
        problems += filter_problems(view, leaf.entry, len(dataset))
        expected = Expected(field, class_number(view, dataset), ignored_values(view, split))
        bad = False
        for found_here, labels in _examine(dataset, expected, workers, split):
            problems += found_here
            counts.update(labels)
            bad = bad or any(each.severity == 'error' for each in found_here)
        # The whole pipeline runs on good files only: a bad mask can take all memory.
        if not bad and f'{field}.pipeline' not in wrong:
            problems += first_image_problems(view, field, dataset)
    where = f'{split}_dataloader.dataset'
    explained = any(each.startswith(where) for each in wrong)
    if built:
        counted = count_problems(view, split, counts, built[0], annotated)
        problems += (each for each in counted if each.severity == 'warning' or not explained)
    is_whole = built and len(built) == len(leaves)
    if view.host == 'mmdet' and split != 'test' and is_whole and not explained:
        infos = (each.get_data_info(index) for each in built for index in range(len(each)))
        if not any(info.get('instances', True) for info in infos):
            fault = _empty_fault(view, leaves, annotated, 'the host leaves out every object')
            problems.append(Problem(where, *fault))
    return sum(map(len, built)), problems


def _build(view: ConfigView, leaf: DatasetEntry) -> Any:
    with contextlib.redirect_stdout(sys.stderr):  # pycocotools prints.
        dataset = view.build_dataset(leaf.entry.settings)
        if isinstance(dataset, BaseDataset):
            dataset.full_init()
    if not len(dataset):
        raise ValueError(_NO_SAMPLES)
    return dataset


def _empty_fault(
    view: ConfigView, leaves: Sequence[DatasetEntry], annotated: Collection[str], found: str
) -> Fault:
    """Return why data sets have no samples or no objects: classes of other names, if known."""
    sets = [view.build_lazily(leaf.entry) for leaf in leaves]
    names = [name for each in sets if each is not None for name in each.metainfo.get('classes', ())]
    if annotated and set(names).isdisjoint(annotated):
        found = f'{found}: none is one of metainfo.classes ({join_first(names)})'
        named = join_first(sorted(annotated))
        return Fault(f'{found}, the annotations name {named}', 'write the classes as there')
    return Fault(
        found,
        'label some; in mmdet, a box is in pixels ([x, y, width, height] in COCO files), at least '
        'one pixel wide and high, and overlaps the image',
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


def _examine(
    dataset: BaseDataset, expected: Expected, workers: int, split: str
) -> Iterator[tuple[list[Problem], Counter[int]]]:
    """Examine all samples in worker processes, as decoding masks holds the GIL."""
    samples: Any = DataLoader(
        range(len(dataset)),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        collate_fn=partial(examine_sample, dataset, expected),  # Run by the workers.
        prefetch_factor=16 if workers else None,
    )
    try:
        yield from track(samples, split, total=len(dataset), console=Console(stderr=True))
    except RuntimeError as error:
        if 'DataLoader worker' not in str(error):
            raise
        raise DataError(
            f'a process that examines {split}_dataloader.dataset was ended from outside, often for '
            'want of memory; --workers 1 needs the least, and --workers 0 examines the files in '
            'the order of the data set'
        ) from error
