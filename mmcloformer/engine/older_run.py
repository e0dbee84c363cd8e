"""Keeping the checkpoints of an older run in the folder of a new one."""

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from ..errors import join_first


class OlderRun:
    """Checkpoints that another run left in the folder of this one.

    A run that does not resume would write over those of them that have the names of its own, and
    leave the others beside these. When it saves its first checkpoint, all are moved together into
    a folder of their own.

    Args:
        runner: A Runner that has loaded its weights already.
        folder: Folder of the checkpoints.
        template: Names of the checkpoints, `{}` for the number.
    """

    def __init__(self, runner: Runner, folder: Path, template: str) -> None:
        self.folder = folder / f'older_{runner.timestamp}'
        own = template.replace('{}', '*')
        patterns = {'epoch_*.pth', 'iter_*.pth', 'best_*.pth', own, f'best_*_{own}'}
        files = {file for pattern in patterns for file in folder.glob(pattern)}
        keep = not is_main_process() or _continues(runner, folder)
        self.files = [] if keep else sorted(files)
        if self.files:
            names = join_first([file.name for file in self.files])
            runner.logger.warning(
                f'{folder} has checkpoints of an older run: {names}. This run does not resume it, '
                f'and moves them to {self.folder} when it saves its own first. To resume the older '
                'run, stop this one and add --resume; to leave them there, use another --work-dir.'
            )

    def move(self) -> None:
        """Move the checkpoints, the first time that this is called."""
        for file in self.files:
            if file.exists():
                self.folder.mkdir(exist_ok=True)
                file.replace(self.folder / file.name)
        self.files = []


def _continues(runner: Runner, folder: Path) -> bool:
    """Return whether a run has resumed from a checkpoint of this folder or its work dir."""
    source = runner._load_from
    if not runner._resume or source is None:  # The host searches the work dir.
        return runner._resume
    folders = {folder.resolve(), Path(runner.work_dir).resolve()}
    return Path(source).parent.resolve() in folders
