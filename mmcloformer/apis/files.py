"""Finding the images to predict, and naming the files of their predictions."""

import glob
import mimetypes
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
    found: dict[str, tuple[str, bool]] = {}  # by absolute path: one that is given twice is one
    roots = []
    for text in inputs:
        path = Path(text)
        is_folder = path.is_dir()
        if is_folder:
            files = [str(file) for file in _walk(path, os.path.realpath(out))]
            roots.append(text)
        elif _is_url(text):
            files = [text]
        else:
            matches = [text] if os.path.lexists(text) else glob.glob(text, recursive=True)
            files = [file for file in matches if not os.path.isdir(file)]
            roots += map(os.path.dirname, files)
        if not files:
            raise UserError(f'{text}: found no image, folder of images or match of the pattern')
        for file in files:
            key = file if _is_url(file) else os.path.abspath(file)
            first, was_given = found.get(key, (file, False))
            found[key] = first, was_given or not is_folder
    root = os.path.commonpath([*map(os.path.abspath, roots)]) if roots else ''
    names = {
        path: _url_name(path) if _is_url(path) else os.path.relpath(key, root)
        for key, (path, _) in sorted(found.items(), key=lambda item: item[1])
    }
    given = {path for path, is_given in found.values() if is_given}
    plan = [
        Source(path, Path(out, stem), Path(out, names[path]), path in given)
        for path, stem in _stems(names, endings, reads).items()
    ]
    _require_new_files(plan, endings, reads)
    return plan


def _is_url(text: str) -> bool:
    return '://' in text and not os.path.lexists(text)


def _url_name(url: str, *, whole: bool = False) -> str:
    """Return a file name for a URL: its last part, or all of it."""
    part = re.sub(r'[?#].*', '', url).split('/')[-1]
    if not part.strip('.'):
        return re.sub(r'\W+', '_', url.split('://')[1])
    if whole:
        part = url.split('://')[1]
    return re.sub(r'[^\w.-]+', '_', part)


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
    clashing = {
        os.path.dirname(names[paths[0]])
        for paths in owners.values()
        if len(paths) > 1 and sum(map(reads, paths)) > 1
    }
    for path, name in names.items():
        if os.path.dirname(name) in clashing:
            stems[path] = _url_name(path, whole=True) if _is_url(path) else name
    return stems


def _require_new_files(
    plan: Sequence[Source], endings: Sequence[str], reads: Callable[[str], bool]
) -> None:
    local = [source.path for source in plan if not _is_url(source.path)]
    images = {os.path.realpath(path) for path in local}
    folders = {os.path.realpath(os.path.dirname(path)) for path in local}
    for source in plan:
        kind = mimetypes.guess_type(source.path)[0] or ''
        if kind.startswith('video') and os.path.isfile(source.video):
            raise UserError(
                f'{source.video}, to be the folder of its frames, is a file: use another --out'
            )
        for ending in endings:
            file = f'{source.stem}{ending}'
            real = os.path.realpath(file)
            is_beside = os.path.realpath(source.stem.parent) in folders and os.path.lexists(file)
            if (is_beside or real in images) and reads(source.path):
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
