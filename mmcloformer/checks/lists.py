"""Checks the text files that list images or names of classes, one per line.

For files in COCO's format see `coco.py`.
"""

import glob
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config import ConfigView
from ..errors import DataError
from .text import decode_text, mark_problem

_HOSTS = ('mmdet', 'mmpretrain', 'mmseg')
_SUFFIXES = ('', '.lst', '.list', '.txt')
_COCO_READERS = ('CocoMetric', 'CocoPanopticMetric')  # Of mmdet.


def check_lists(cfg: Config, splits: Sequence[str]) -> None:
    """Check the lists of images and classes, and the files of evaluators, of some splits.

    The files must exist (see `check_present`). Files on other back ends are left to the host.

    Args:
        cfg: The whole config.
        splits: Which of `train`, `val` and `test` to check.

    Raises:
        DataError: If the host cannot read one, or if paths have back-slashes. The message lists
            every problem.
    """
    problems: list[str] = []
    for split in splits:
        for found in ConfigView(cfg).datasets(split):
            problems += list_problems(cfg, split, found.entry.settings)
        for evaluator in ConfigView(cfg).evaluators(split):
            if str(evaluator.settings.get('type')).endswith(_COCO_READERS):
                file = evaluator.settings.get('ann_file')
                problems += _encoding_problems(file, f'{split}_evaluator.ann_file')
    if problems:
        listed = '\n'.join(f'  {problem}' for problem in problems)
        raise DataError(f'the host cannot use these files:\n{listed}')


def list_problems(cfg: Config, split: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems that `check_lists` finds in the files of one dataset.

    Args:
        cfg: The whole config.
        split: `train`, `val` or `test`.
        dataset: The dataset's config, not a wrapper's. Nothing is found if its class has code of
            its own that lists the samples.
    """
    if not _is_hosts(cfg, dataset):
        return
    where = f'{split}_dataloader.dataset'
    names = {'classes': dataset.get('classes')}
    metainfo = dataset.get('metainfo')
    if isinstance(metainfo, Mapping):
        names |= {f'metainfo.{key}': value for key, value in metainfo.items()}
    for field, name in names.items():
        yield from _encoding_problems(name, f'{where}.{field}')
    file = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    is_list = Path(file).suffix in _SUFFIXES
    if is_list or cfg.default_scope != 'mmdet':
        yield from _encoding_problems(file, f'{where}.ann_file')
    if is_list:
        yield from _path_problems(file, f'{where}.ann_file', dataset)


def _is_hosts(cfg: Config, dataset: Mapping[str, Any]) -> bool:
    """Return whether a host's own code lists the samples of a dataset."""
    kind, scope = dataset.get('type'), cfg.get('default_scope')
    if scope in _HOSTS:
        kind = ConfigView(cfg).resolve(kind, 'DATASETS')
    method = getattr(kind, 'load_data_list', None)
    return getattr(method, '__module__', '').partition('.')[0] in (*_HOSTS, 'mmengine')


def _encoding_problems(file: Any, field: str) -> Iterator[str]:
    """Yield what is wrong with the encoding of a local text file, by its first bytes."""
    is_text = isinstance(file, str) and Path(file).suffix in (*_SUFFIXES, '.json')
    if is_text and os.path.isfile(file):
        with open(file, 'rb') as opened:
            problem = mark_problem(opened.read(4), file)
        if problem:
            yield f'{file} ({field}): {problem}'


def _path_problems(file: str, field: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the paths in a list of images."""
    if not os.path.isfile(file):
        return
    try:
        lines = decode_text(Path(file).read_bytes(), file).split('\n')
    except ValueError as error:
        yield f'{file} ({field}): {error}'
        return
    paths = [line.strip() for line in lines if '\\' in line]
    if paths and not _exists(paths[0].split(' ')[0], dataset):
        yield (
            f'{file} ({field}): {len(paths)} paths have back-slashes, the first is {paths[0]}; '
            rf"write slashes: sed -i 's#\\#/#g' {shlex.quote(file)}"
        )


def _exists(path: str, dataset: Mapping[str, Any]) -> bool:
    """Return whether a file in a folder of images has this name, maybe with a suffix."""
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    for folder in prefix.values() if isinstance(prefix, Mapping) else [prefix]:
        start = os.path.join(dataset.get('data_root') or '', folder or '', path)
        if glob.glob(f'{glob.escape(start)}*'):
            return True
    return False
