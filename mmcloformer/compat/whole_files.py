"""A storage backend for mmengine that never leaves a partial file."""

import shutil
from pathlib import Path

from mmengine.fileio import LocalBackend

from ..checkpoint.saving import write_whole
from ..errors import CheckpointError

BACKEND = 'mmcloformer-whole-files'
# One name, so that each file replaces what a killed process left of another one.
PARTIAL = 'unfinished.part'


class WholeFilesBackend(LocalBackend):
    """Writes files under a temporary name and renames them; removes files only after that.

    For the checkpoints of one folder. mmengine removes the outdated ones before it saves the next
    one, and writes in place, so a kill or a full disk in between loses both.

    Args:
        outdated: Files to remove after the next one is complete. mmengine builds a backend for
            each operation, and all that share this list act as one.
    """

    def __init__(self, outdated: list[str]) -> None:
        self.outdated = outdated

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file, then remove the outdated ones in its folder.

        Raises:
            CheckpointError: If it cannot be written; no other file is changed then.
        """
        path = Path(filepath)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, obj, path.with_name(PARTIAL))
        except OSError as error:
            free = shutil.disk_usage(path.parent).free
            raise CheckpointError(
                f'{path} could not be saved: {error.strerror or error}. It needs '
                f'{len(obj) / 1e6:.1f} MB, {free / 1e6:.1f} MB are free there. The checkpoints '
                f'saved before are complete: free some space and continue with --resume.'
            ) from error
        # A run that was resumed from another folder does not remove the best checkpoint there.
        for old in map(Path, self.outdated):
            if old.parent.resolve() == path.parent.resolve() and old.name != path.name:
                old.unlink(missing_ok=True)
        self.outdated.clear()

    def remove(self, filepath: str | Path) -> None:
        """Remove a file after the next one is complete."""
        self.outdated.append(str(filepath))
