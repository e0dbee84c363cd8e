"""The visualization hook of mmseg."""

import os
from collections.abc import Sequence
from typing import Any

import mmcv
from mmengine.fileio import get
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.engine.hooks import SegVisualizationHook

from .folders import KeepFolders


@HOOKS.register_module()
class SegFoldersVisualizationHook(KeepFolders, SegVisualizationHook):
    """mmseg's hook, with a sub-folder per sub-folder of images.

    Args:
        out_dir: Folder for the pictures; a relative one is put into the folder of the run.
        **settings: Arguments of the host's hook.
    """

    def __init__(self, out_dir: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.out_dir = out_dir
        self._number = 0

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draw each image of the batch. The pictures have the host's names."""
        folder = os.path.join(runner.log_dir, self.out_dir)
        for sample in outputs:
            self._number += 1
            name = f'test_{os.path.basename(sample.img_path)}'
            image = mmcv.imfrombytes(
                get(sample.img_path, backend_args=self.backend_args), channel_order='rgb'
            )
            file = f'{name}_{self._number}.png'
            self._visualizer.add_datasample(
                name,
                image,
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                out_file=os.path.join(folder, self.subfolder(sample), file),
                step=self._number,
            )
