"""Finding the images to predict, and naming the files of their predictions."""

import glob
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError


class Source(NamedTuple):
    """A file to predict.

    Attributes:
        path: The file, or a URL.
        stem: Path of the predicted files without their endings.
        video: Folder for the frames, in case the file is a video.
        given: Whether the user named the file; other files of a folder may be no images.
    """

    path: str
    stem: Path
    video: Path
    given: bool


def plan_files(
    inputs: Sequence[str], out: str, endings: Sequence[str], reads: Callable[[str], bool]
) -> list[Source]:
    """Find images and plan the files of their predictions.

    Args:
        inputs: Files, URLs, folders (searched recursively, links to folders included), and
            patterns with `*` or `**`. Hidden files in folders, and `out`, are left out.
        out: Folder for predictions; it gets the same subfolders as the images.
        endings: What is added to a `stem`, such as `.json`.
        reads: Returns whether a file is an image; asked only where two files have the same stem
            or a predicted file exists.

    Returns:
        The files. `a.jpg` beside `a.png` keep their suffix in the `stem`.

    Raises:
        UserError: If there are no files, or if a predicted file would overwrite an image or any
            file in a folder of the images.
    """
    if not out or not all(inputs):
        raise UserError('the images or --out are an empty string; is a shell variable unset?')
    urls: dict[str, str] = {}
    paths: dict[str, str] = {}  # by absolute path: a file that is given twice is one
    given: set[str] = set()
    roots = []
    for text in inputs:
        path = Path(text)
        if _is_url(text):
            urls[text] = re.sub(r'[^\w.-]+', '_', re.sub(r'[?#].*', '', text).split('/')[-1])
            continue
        if path.is_dir():
            files = [*_walk(path, os.path.realpath(out))]
            roots.append(path)
        else:
            files = [path] if os.path.lexists(path) else _matches(text)
            given.update(map(os.path.abspath, files))
            roots += [file.parent for file in files]
        if not files:
            raise UserError(f'{text}: found no image, folder of images or match of the pattern')
        for file in files:
            paths.setdefault(os.path.abspath(file), str(file))
    root = os.path.commonpath([os.path.abspath(path) for path in roots]) if roots else ''
    found = urls | {path: os.path.relpath(file, root) for file, path in paths.items()}
    names = dict(sorted(found.items()))
    given |= urls.keys() | {path for file, path in paths.items() if file in given}
    plan = [
        Source(path, Path(out, stem), Path(out, names[path]), path in given)
        for path, stem in _stems(names, endings, reads).items()
    ]
    _require_new_files(plan, endings, reads)
    return plan


def _is_url(text: str) -> bool:
    return '://' in text and not os.path.lexists(text)


def _matches(pattern: str) -> list[Path]:
    return [path for path in map(Path, glob.glob(pattern, recursive=True)) if not path.is_dir()]


def _walk(folder: Path, out: str, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files of a folder, broken links included, in links to folders too."""
    real = os.path.realpath(folder)
    if real in above or (above and real == out):
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith('.'):
            continue
        if path.is_dir():
            yield from _walk(path, out, (*above, real))
        else:
            yield path


def _stems(
    names: dict[str, str], endings: Sequence[str], reads: Callable[[str], bool]
) -> dict[str, str]:
    """Return names without suffixes; with them in folders where two images differ only by these."""
    stems = {path: os.path.splitext(name)[0] for path, name in names.items()}
    owners = defaultdict(list)
    for path, stem in stems.items():
        for ending in endings:
            owners[stem + ending].append(path)
    clashing = set()
    for paths in owners.values():
        if len(paths) > 1 and sum(map(reads, paths)) > 1:
            clashing.add(os.path.dirname(names[paths[0]]))
    for path, name in names.items():
        if os.path.dirname(name) in clashing:
            stems[path] = re.sub(r'[^\w.-]+', '_', path.split('://')[1]) if _is_url(path) else name
    return stems


def _require_new_files(
    plan: Sequence[Source], endings: Sequence[str], reads: Callable[[str], bool]
) -> None:
    local = [source for source in plan if not _is_url(source.path)]
    folders = {os.path.realpath(os.path.dirname(source.path)) for source in local}
    images = {os.path.realpath(source.path) for source in local}
    for source in plan:
        beside = os.path.realpath(source.stem.parent) in folders
        for ending in endings:
            file = f'{source.stem}{ending}'
            exists = os.path.realpath(file) in images or (beside and os.path.lexists(file))
            if exists and reads(source.path):
                raise UserError(
                    f'{file}, to be written for {source.path}, already exists: use another --out'
                )


def require_writable(folder: str) -> None:
    """Create the folder of the predictions and check that files can be written to it.

    Raises:
        UserError: If they cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f'cannot write to {folder} ({error.strerror}): use another --out'
        ) from error
