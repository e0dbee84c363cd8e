"""Checks which files the hosts take for samples, and the text files that list them."""

import codecs
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.fileio import YamlHandler
from mmengine.fileio.handlers import file_handlers

from ..config import ConfigView, Entry, is_in_hosts
from .image import seems_image
from .problem import Fault, Problem


def mark_fault(start: bytes) -> Fault | None:
    """Return why a host cannot read a text file that begins with these bytes.

    The hosts read text as UTF-8. A byte-order mark stays in the text, where JSON does not allow it,
    and where it becomes a part of the first name.
    """
    if not start.startswith(
        (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
    ):
        return None
    return Fault(
        'begins with a byte-order mark, which the host takes for text',
        'save it as UTF-8 without one',
    )


def listing_problems(
    view: ConfigView, splits: Sequence[str], count_all: bool = False
) -> Iterator[Problem]:
    """Yield byte-order marks in lists of images and of classes, and images that are left out.

    Files on other back ends, and data sets that list their samples with code of their own, are not
    checked. `coco_problems` checks files in COCO's format.

    Args:
        view: The config.
        splits: Which of `train`, `val` and `test` to check.
        count_all: Whether to list whole folders, to count the images that are left out. Otherwise
            only folders of which nothing is left are found.
    """
    for dataset, _, _ in view.datasets(*splits):
        yield from _left_out_problems(view, dataset, count_all)
        if not is_in_hosts(getattr(dataset.kind, 'load_data_list', None)):
            continue
        settings = dataset.settings
        files = {'classes': settings.get('classes')}
        if isinstance(metainfo := settings.get('metainfo'), Mapping):
            files |= {f'metainfo.{key}': value for key, value in metainfo.items()}
        listed = os.path.join(settings.get('data_root') or '', settings.get('ann_file') or '')
        may_have_mark = isinstance(file_handlers.get(listed.rpartition('.')[2]), YamlHandler)
        if not may_have_mark and not hasattr(dataset.kind, 'COCOAPI'):
            files['ann_file'] = listed
        for key, file in files.items():
            if isinstance(file, str) and os.path.isfile(file):
                with open(file, 'rb') as opened:
                    fault = mark_fault(opened.read(4))
                if fault:
                    yield Problem(f'{dataset.field}.{key}', *fault, file=file)


def _left_out_problems(view: ConfigView, dataset: Entry, count_all: bool) -> Iterator[Problem]:
    """Yield how many images of a folder are no samples, as mmseg and mmpretrain choose by suffix.

    Nothing happens if a list, or code of the data set's own, names the samples.
    """
    bases = dict(mmseg='mmseg.BaseSegDataset', mmpretrain='mmpretrain.CustomDataset')
    base = view.resolve(bases.get(view.host or ''), 'DATASETS')
    if base is None or getattr(dataset.kind, 'load_data_list', None) is not base.load_data_list:
        return
    built: Any = view.build_lazily(dataset)
    if built is None or (built.ann_file and not os.path.isdir(built.ann_file)):
        return
    folder = built.data_prefix.get('img_path')
    if dataset.settings.get('backend_args') or not os.path.isdir(folder or ''):
        return
    if view.host == 'mmseg':
        remedy = (
            f'the host takes only file names that end in {built.img_suffix!r}, with this case: set '
            f'{dataset.field}.img_suffix to the ending of the images; if there are several, rename '
            'or convert them to one'
        )
    else:
        placed = ', in folders of classes only' if built.with_label else ''
        remedy = (
            f'the host takes {" ".join(sorted(built.extensions))} ({dataset.field}.extensions)'
            f'{placed}: add an ending to extensions if the loading step can read it, or convert '
            'the files'
        )
    kept, out = 0, Counter[str]()
    for file in fileio.list_dir_or_file(folder, list_dir=False, recursive=True):
        path = os.path.join(folder, file)
        if _is_taken(built, file):
            kept += 1
            if not count_all:
                return
        elif not _is_label_map(built, path) and seems_image(path):
            out[Path(file).suffix or 'without suffix'] += 1
    if out:
        counted = sorted(out.items(), key=lambda item: (-item[1], item[0]))
        endings = ', '.join(f'{count} {suffix}' for suffix, count in counted)
        found = 'images are left out' if kept else 'no image is left'
        yield Problem(
            dataset.field,
            f'{found}: {out.total()} of {kept + out.total()} in {folder} ({endings})',
            remedy,
            severity='warning' if kept else 'error',
        )


def filter_problems(view: ConfigView, dataset: Entry, samples: int) -> Iterator[Problem]:
    """Yield how many of mmdet's samples `filter_cfg` leaves out."""
    settings, filters = dataset.settings, dataset.settings.get('filter_cfg')
    whole = settings.get('indices') is None and not settings.get('test_mode')
    if view.host == 'mmdet' and filters and whole:
        with contextlib.redirect_stdout(sys.stderr):  # pycocotools prints.
            listed = len(view.build_dataset(settings, filter_cfg=None, pipeline=[]))
        if listed > samples:
            found = f'{listed - samples} of {listed} samples are left out by filter_cfg='
            remedy = 'set filter_cfg=None to keep them'
            yield Problem(dataset.field, f'{found}{dict(filters)}', remedy, severity='warning')


def _is_taken(dataset: Any, file: str) -> bool:
    """Return whether mmseg or mmpretrain takes a file, given its path below the folder."""
    if hasattr(dataset, 'img_suffix'):
        return file.endswith(dataset.img_suffix)
    placed = os.path.dirname(file) or not dataset.with_label
    return bool(placed and dataset.is_valid_file(file))


def _is_label_map(dataset: Any, path: str) -> bool:
    labels = dataset.data_prefix.get('seg_map_path')
    if not labels or not path.endswith(dataset.seg_map_suffix):
        return False
    return Path(labels).resolve() in Path(path).resolve().parents
