"""A checkpoint hook that never leaves a checkpoint half written."""

import hashlib
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process, master_only
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, save_checkpoint
from torch import Tensor

from ..checkpoint.reading import read_checkpoint
from ..errors import CheckpointError
from .older_run import OlderRun


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, safe against kills and full disks.

    The host writes a checkpoint in place, after removing the one that `max_keep_ckpts` or
    `save_best` no longer keeps: a process that is killed in between, or a full disk, loses both.
    Here a checkpoint is written under a name in `.part`, flushed to disk and renamed, and the
    outdated ones are removed afterwards, so the disk needs room for one more checkpoint. Those of
    an older run that is not resumed are moved aside (`OlderRun`). Remote folders are left to the
    host. The arguments are the host's.
    """

    file_backend: Any
    _saver: '_AtomicSaver | None' = None

    def before_train(self, runner: Runner) -> None:
        """Set up the folder; have `_AtomicSaver` do the removals of a local one."""
        super().before_train(runner)
        if isinstance(self.file_backend, LocalBackend):
            older = OlderRun(runner, Path(self.out_dir), self.filename_tmpl)
            self._saver = _AtomicSaver(runner, older)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note the size of the checkpoint, for the message about a full disk."""
        if self._saver is not None:
            self._saver.size = sum(tensor.nbytes for tensor in _tensors(checkpoint))

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save at the host's interval.

        Raises:
            CheckpointError: If the checkpoint cannot be written; the older ones are kept.
        """
        self._call(super().after_train_iter, runner, *args, **kwargs)

    def after_train_epoch(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save at the host's interval; raises as `after_train_iter`."""
        self._call(super().after_train_epoch, runner, *args, **kwargs)

    def after_val_epoch(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save the best checkpoint; raises as `after_train_iter`."""
        self._call(super().after_val_epoch, runner, *args, **kwargs)

    def _call(self, method: Any, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Call a method of the host with a stand-in for the runner and for the file backend."""
        if self._saver is None:
            method(runner, *args, **kwargs)
            return
        backend = self.file_backend
        self.file_backend = _RemovalRecorder(self._saver.outdated)
        try:
            method(self._saver, *args, **kwargs)
        finally:
            self.file_backend = backend
            self._saver.outdated.clear()

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Publish as the host does, then rename the published file to its final name."""
        if self._saver is None:
            super()._publish_model(runner, ckpt_path)
            return
        checkpoint = read_checkpoint(ckpt_path)
        published = {key: checkpoint[key] for key in checkpoint if key in self.published_keys}
        self._saver.publish(published, Path(ckpt_path))


class _RemovalRecorder(LocalBackend):
    """A local file backend that records what is to be removed and removes nothing.

    Args:
        outdated: Recorded paths, each with the identity of the file at that time.
    """

    def __init__(self, outdated: dict[Path, tuple[int, ...]]) -> None:
        self.outdated = outdated

    def remove(self, filepath: str | Path) -> None:
        """Record a file."""
        self.outdated[Path(filepath)] = _identity(Path(filepath))

    def rmtree(self, dir_path: str | Path) -> None:
        """Record a folder, as which DeepSpeed and sharded models are saved."""
        self.remove(dir_path)


class _AtomicSaver:
    """Passed to the host's hook in place of the Runner; only `save_checkpoint` differs.

    Args:
        runner: The Runner; all other attributes are read from it.
        older: Checkpoints in the way, moved before the first one is put in its place.
    """

    def __init__(self, runner: Runner, older: OlderRun | None = None) -> None:
        self.runner = runner
        self.older = older
        self.outdated: dict[Path, tuple[int, ...]] = {}
        self.size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save under a temporary name, rename, then remove the recorded checkpoints.

        Raises:
            CheckpointError: If the checkpoint cannot be written; nothing is removed then.
        """
        path = Path(out_dir, filename)
        partial = path.with_name(f'{path.name}.part')
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_main_process():
            _remove(partial)  # Left by a process that was killed.
        try:
            self.runner.save_checkpoint(out_dir, partial.name, *args, **kwargs)
            barrier()  # Sharded strategies write one file per process.
            if not is_main_process():
                return
            _flush(partial)
            if self.older is not None:
                self.older.move()
            if path.is_dir():
                shutil.rmtree(path)
            partial.replace(path)
        except OSError as error:
            raise self._give_up(path, partial, error) from error
        for old, identity in self.outdated.items():
            # Never a file that was created anew in the meantime, nor one in another folder: the
            # best checkpoint of the run that this one was resumed from.
            own = old.parent.resolve() == path.parent.resolve()
            if own and os.path.lexists(old) and _identity(old) == identity:
                _remove(old)
        self.outdated.clear()

    def publish(self, checkpoint: dict[str, Any], source: Path) -> None:
        """Write a published checkpoint beside its source, under a name with its checksum.

        Raises:
            CheckpointError: If it cannot be written.
        """
        checksum = hashlib.sha256(pickle.dumps(checkpoint)).hexdigest()[:8]
        path = source.with_name(f'{source.stem}-{checksum}.pth')
        partial = path.with_name(f'{path.name}.part')
        self.size = sum(tensor.nbytes for tensor in _tensors(checkpoint))
        try:
            save_checkpoint(checkpoint, str(partial))
            _flush(partial)
            partial.replace(path)
        except OSError as error:
            raise self._give_up(path, partial, error) from error
        self.runner.logger.info(f'The checkpoint {source} is published to {path}.')

    def _give_up(self, path: Path, partial: Path, error: OSError) -> CheckpointError:
        _remove(partial)
        free = shutil.disk_usage(path.parent).free
        return CheckpointError(
            f'{path} could not be saved: {error.strerror or error}. It needs about '
            f'{self.size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free there. The checkpoints saved '
            f'before are complete: free some space and continue with --resume.'
        )


def _identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on the disk."""
    for file in [path] if path.is_file() else path.rglob('*'):
        if file.is_file():
            with file.open('rb') as opened:
                os.fsync(opened.fileno())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)
