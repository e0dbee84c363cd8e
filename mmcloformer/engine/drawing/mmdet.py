"""The visualization hook of mmdet."""

import os
from collections.abc import Sequence
from typing import Any

from mmdet.engine.hooks import DetVisualizationHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .folders import KeepFolders


@HOOKS.register_module()
class DetFoldersVisualizationHook(KeepFolders, DetVisualizationHook):
    """mmdet's hook, with a sub-folder of `test_out_dir` per sub-folder of images.

    The arguments are the host's; `test_out_dir` is required.
    """

    test_out_dir: str

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draw each image of the batch."""
        folder = self.test_out_dir
        for sample in outputs:
            self.test_out_dir = os.path.join(folder, self.subfolder(sample))
            super().after_test_iter(runner, batch_idx, data_batch, [sample])
        self.test_out_dir = folder
