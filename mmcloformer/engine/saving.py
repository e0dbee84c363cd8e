"""A checkpoint hook that never leaves a checkpoint half written."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner, save_checkpoint

from ..compat.whole_files import BACKEND, PARTIAL


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, safe against kills and full disks.

    It writes through `WholeFilesBackend`, so the disk needs room for one more checkpoint. Remote
    folders, and the strategies of a FlexibleRunner, which save by themselves, are left to the
    host. The arguments are the host's.
    """

    backend_args: dict[str, Any] | None

    def before_train(self, runner: Runner) -> None:
        """Set up the backend; warn of the checkpoints of another run."""
        backend = get_file_backend(self.out_dir or runner.work_dir, backend_args=self.backend_args)
        is_local = type(backend) is LocalBackend and self.file_client_args is None
        if is_local and isinstance(runner, Runner):
            self.backend_args = dict(backend=BACKEND, outdated=[])
        super().before_train(runner)
        if is_local and is_main_process():
            folder = Path(self.out_dir)
            (folder / PARTIAL).unlink(missing_ok=True)
            if not runner._resume and any(folder.glob('*.pth')):
                runner.logger.warning(
                    f'{folder} has checkpoints of another run, which this run does not resume. It '
                    'replaces those that have the names of its own. To resume the other run, stop '
                    'this one and add --resume; to keep its checkpoints, use another --work-dir.'
                )

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Publish as the host does, through the backend."""
        checkpoint = CheckpointLoader.load_checkpoint(ckpt_path, map_location='cpu')
        published = {key: checkpoint[key] for key in checkpoint if key in self.published_keys}
        checksum = hashlib.sha256(pickle.dumps(published)).hexdigest()[:8]
        path = f'{os.path.splitext(ckpt_path)[0]}-{checksum}.pth'
        save_checkpoint(published, path, backend_args=self.backend_args)
        runner.logger.info(f'The checkpoint {ckpt_path} is published to {path}.')
