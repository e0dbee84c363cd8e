"""Saving checkpoints whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import ClassVar

from mmengine.fileio import LocalBackend, register_backend

from ..errors import CheckpointError


class WholeFileBackend(LocalBackend):
    """mmengine's local files, of which none is ever there half written.

    The host writes a checkpoint in place, after removing the one that `max_keep_ckpts` or
    `save_best` no longer wants: a process killed in between, or a full disk, loses both. Here a
    file appears under its name once it is on the disk, and only then goes what it replaces, so
    the disk needs room for one checkpoint more.
    """

    # Of the class, because mmengine makes an instance for every file that it writes.
    _outdated: ClassVar[set[Path]] = set()

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file, then remove what `remove` was asked to.

        Raises:
            CheckpointError: If it cannot be written; nothing is removed then.
        """
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(path, obj)
        except OSError as error:
            free = shutil.disk_usage(path.parent).free
            raise CheckpointError(
                f'{path} could not be saved: {error.strerror}. It takes {len(obj) / 1e6:.1f} MB, '
                f'{free / 1e6:.1f} MB are free there. The checkpoints saved before are whole: '
                f'make room and go on with --resume.'
            ) from error
        self._outdated.discard(path)
        while self._outdated:
            self._outdated.pop().unlink(missing_ok=True)

    def remove(self, filepath: str | Path) -> None:
        """Mark a file for removal after the next `put`."""
        self._outdated.add(Path(filepath))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name once all of it is on the disk, or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    partial = path.with_name(f'{path.name}.part')
    try:
        with partial.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def save_whole_files() -> None:
    """Have everything that mmengine saves locally in this process go through
    `WholeFileBackend`, whichever runner or strategy saves it."""
    register_backend('local', WholeFileBackend, force=True, prefixes='')
