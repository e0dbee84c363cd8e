"""Checks the sources of a data set's samples: lists in text files, and folders of files.

The hosts read text as UTF-8. A byte-order mark stays in the text, where JSON does not allow it, and
where it becomes a part of the first name.
"""

import codecs
import glob
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.fileio import JsonHandler
from mmengine.fileio.handlers import file_handlers
from mmengine.registry import DATASETS, DefaultScope

from ..config import ConfigView, DatasetEntry, Entry, is_in_hosts
from .image import seems_image
from .problem import Fault, Problem

_WIDE = {
    codecs.BOM_UTF32_LE: 'UTF-32',  # Before UTF-16, with which it begins.
    codecs.BOM_UTF32_BE: 'UTF-32',
    codecs.BOM_UTF16_LE: 'UTF-16',
    codecs.BOM_UTF16_BE: 'UTF-16',
}


def mark_fault(start: bytes, file: str) -> Fault | None:
    """Return why a host cannot read a text file that has a byte-order mark.

    Args:
        start: The first four bytes of the file, or more.
        file: Name of the file.
    """
    name = shlex.quote(file)
    if start.startswith(codecs.BOM_UTF8):
        return Fault(
            'begins with a byte-order mark, which the host takes for text',
            rf"save it as UTF-8 without one: sed -i '1s/^\xEF\xBB\xBF//' {name}",
        )
    if encoding := _wide_encoding(start):
        return Fault(
            f'is {encoding}, which the host cannot read',
            f'save it as UTF-8: iconv -f {encoding} -t UTF-8 {name} > NEW',
        )
    return None


def decode_text(content: bytes, file: str) -> str:
    """Decode a text file; one with a byte-order mark is decoded as that says.

    Args:
        content: Content of the file.
        file: Name of the file.

    Raises:
        ValueError: If it cannot be decoded; the message says how to convert it.
    """
    try:
        return content.decode(_wide_encoding(content) or 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(
            f'it is not UTF-8 ({error}); convert it: '
            f'iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(file)} > NEW, if it is from Windows'
        ) from error


def _wide_encoding(start: bytes) -> str | None:
    return next((name for mark, name in _WIDE.items() if start.startswith(mark)), None)


def listing_problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with lists of images and classes, and folders without any sample.

    The files and folders must exist (see `check_present`). Files on other back ends, and data sets
    that list their samples with code of their own, are not checked. `coco_problems` checks files in
    COCO's format.

    Args:
        view: The config.
        splits: Which of `train`, `val` and `test` to check.
    """
    for dataset in view.datasets(*splits):
        if is_in_hosts(getattr(dataset.entry.kind, 'load_data_list', None)):
            yield from _name_problems(dataset.entry)
            yield from _list_problems(view, dataset.entry)
        if (taken := _taken_files(view, dataset.entry)) and not taken.any():
            yield from taken.left_out(dataset.entry.field, 'no image is left', 'error')


def left_out_problems(view: ConfigView, dataset: DatasetEntry, samples: int) -> Iterator[Problem]:
    """Yield how many samples a host leaves out, unless they are listed in COCO's format.

    Args:
        view: The config.
        dataset: The data set.
        samples: Number of its samples.
    """
    field, settings = dataset.entry.field, dataset.entry.settings
    if taken := _taken_files(view, dataset.entry):
        yield from taken.left_out(field, 'images are left out', 'warning')
    filters = settings.get('filter_cfg')
    whole = settings.get('indices') is None and not settings.get('test_mode')
    if view.host == 'mmdet' and filters and whole and not hasattr(dataset.entry.kind, 'COCOAPI'):
        out = len(build_dataset(view, settings, filter_cfg=None, pipeline=[])) - samples
        if out > 0:
            yield Problem(
                field,
                f'{out} of {out + samples} samples are left out by filter_cfg={dict(filters)}',
                'set filter_cfg=None to keep them',
                severity='warning',
            )


def build_dataset(view: ConfigView, settings: Mapping[str, Any], **changes: Any) -> Any:
    """Build a data set as the host does, whatever the default scope of this process is.

    Args:
        view: The config.
        settings: The settings of the data set.
        **changes: Fields to override.
    """
    with DefaultScope.overwrite_default_scope(view.host):
        return DATASETS.build({**settings, **changes})


def _name_problems(dataset: Entry) -> Iterator[Problem]:
    """Yield byte-order marks in the files that the host reads for a value of `metainfo`."""
    metainfo = dataset.settings.get('metainfo')
    names = {'classes': dataset.settings.get('classes')}
    if isinstance(metainfo, Mapping):
        names |= {f'metainfo.{key}': value for key, value in metainfo.items()}
    for key, file in names.items():
        yield from _mark_problems(file, f'{dataset.field}.{key}')


def _list_problems(view: ConfigView, dataset: Entry) -> Iterator[Problem]:
    settings, field = dataset.settings, f'{dataset.field}.ann_file'
    file = os.path.join(settings.get('data_root') or '', settings.get('ann_file') or '')
    method = dataset.kind.load_data_list
    if method is getattr(_line_reader(view), 'load_data_list', None):
        yield from _mark_problems(file, field)
        yield from _path_problems(file, field, settings)
    elif method is BaseDataset.load_data_list:
        handler = file_handlers.get(file.rpartition('.')[2])
        if isinstance(handler, JsonHandler):  # YAML may have a mark.
            yield from _mark_problems(file, field)


def _line_reader(view: ConfigView) -> Any:
    """Return the data set of a host that reads a file of one image per line, or a folder."""
    readers = dict(mmdet='XMLDataset', mmseg='BaseSegDataset', mmpretrain='CustomDataset')
    host = view.host
    return getattr(import_module(f'{host}.datasets'), readers[host]) if host else None


def _mark_problems(file: Any, field: str) -> Iterator[Problem]:
    if isinstance(file, str) and os.path.isfile(file):
        with open(file, 'rb') as opened:
            if fault := mark_fault(opened.read(4), file):
                yield Problem(field, *fault, file=file)


def _path_problems(file: str, field: str, settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the paths in a list of images."""
    if not os.path.isfile(file):
        return
    try:
        lines = decode_text(Path(file).read_bytes(), file).split('\n')
    except ValueError as error:
        yield Problem(field, str(error), '', file)
        return
    paths = [line.strip() for line in lines if '\\' in line]
    if paths and not _exists(paths[0].split(' ')[0], settings):
        yield Problem(
            field,
            f'{len(paths)} paths have back-slashes, the first is {paths[0]}',
            rf"write slashes: sed -i 's#\\#/#g' {shlex.quote(file)}",
            file,
        )


def _exists(path: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a file in a folder of images has this name, maybe with a suffix."""
    prefix = settings.get('data_prefix') or settings.get('split') or ''
    for folder in prefix.values() if isinstance(prefix, Mapping) else [prefix]:
        start = os.path.join(settings.get('data_root') or '', folder or '', path)
        if glob.glob(f'{glob.escape(start)}*'):
            return True
    return False


class _TakenFiles(NamedTuple):
    """Which files of a folder are samples of a data set.

    Attributes:
        folder: The folder.
        takes: Whether the host takes a file, given its path below the folder.
        belongs: Whether a file that is not taken is there for something else.
        remedy: How to make the host take other files.
    """

    folder: str
    takes: Callable[[str], bool]
    belongs: Callable[[str], bool]
    remedy: str

    def files(self) -> Iterator[str]:
        """Yield the files that the host looks at."""
        yield from fileio.list_dir_or_file(self.folder, list_dir=False, recursive=True)

    def any(self) -> bool:
        """Return whether any file is taken; stops at the first one."""
        return any(map(self.takes, self.files()))

    def left_out(self, field: str, found: str, severity: Any) -> Iterator[Problem]:
        """Yield how many images are not taken.

        Args:
            field: The field of the data set.
            found: What that means.
            severity: Severity of the problem.
        """
        out: Counter[str] = Counter()
        kept = 0
        for file in self.files():
            if self.takes(file):
                kept += 1
            elif not self.belongs(file) and seems_image(os.path.join(self.folder, file)):
                out[Path(file).suffix or 'without suffix'] += 1
        if out:
            counted = sorted(out.items(), key=lambda item: (-item[1], item[0]))
            endings = ', '.join(f'{count} {suffix}' for suffix, count in counted)
            yield Problem(
                field,
                f'{found}: {out.total()} of {kept + out.total()} in {self.folder} ({endings})',
                self.remedy,
                severity=severity,
            )


def _taken_files(view: ConfigView, dataset: Entry) -> _TakenFiles | None:
    """Return which files a data set takes; None if that is up to a list, or code of its own."""
    base = _line_reader(view)
    methods = ['load_data_list'] + ['_find_samples', 'is_valid_file'] * (view.host == 'mmpretrain')
    if (
        view.host not in ('mmseg', 'mmpretrain')
        or not dataset.is_a(base)
        or dataset.settings.get('backend_args')
        or any(getattr(dataset.kind, name) is not getattr(base, name) for name in methods)
    ):
        return None
    built = view.build_lazily(dataset)
    if built is None:
        return None
    describe = _taken_by_suffix if view.host == 'mmseg' else _taken_by_extension
    taken = describe(built, dataset.field)
    return taken if taken and os.path.isdir(taken.folder) else None


def _taken_by_suffix(dataset: Any, field: str) -> _TakenFiles | None:
    folder, labels = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    if not folder or (dataset.ann_file and not os.path.isdir(dataset.ann_file)):
        return None

    def is_label_map(file: str) -> bool:
        if not labels:
            return False
        path = os.path.join(os.path.abspath(folder), file)
        beside = os.path.abspath(labels) == os.path.abspath(folder)
        if beside:
            return file.endswith(dataset.seg_map_suffix)
        return path.startswith(os.path.abspath(labels) + os.sep)

    return _TakenFiles(
        folder,
        lambda file: file.endswith(dataset.img_suffix),
        is_label_map,
        f'the host takes only file names that end in {dataset.img_suffix!r}, with this case: set '
        f'{field}.img_suffix to the ending of the images; if there are several, rename or convert '
        'them to one',
    )


def _taken_by_extension(dataset: Any, field: str) -> _TakenFiles | None:
    if dataset.ann_file:
        return None
    only = ', in folders of classes only' if dataset.with_label else ''

    def takes(file: str) -> bool:
        placed = not dataset.with_label or os.path.dirname(file) != ''
        return placed and bool(dataset.is_valid_file(file))

    return _TakenFiles(
        dataset.img_prefix,
        takes,
        lambda file: False,
        f'the host takes {" ".join(sorted(dataset.extensions))} ({field}.extensions){only}: add an '
        'ending to extensions if the loading step can read it, or convert the files',
    )
