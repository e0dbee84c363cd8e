"""The visualization hook of mmpretrain."""

import os
from collections.abc import Sequence
from typing import Any

from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.engine.hooks import VisualizationHook

from .folders import KeepFolders


@HOOKS.register_module()
class ClsFoldersVisualizationHook(KeepFolders, VisualizationHook):
    """mmpretrain's hook, with a sub-folder of `out_dir` per sub-folder of images.

    The arguments are the host's; `out_dir` is required, and a relative one is put into the folder
    of the run. Every image is drawn.
    """

    out_dir: str
    _number = 0

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draw each image of the batch."""
        folder = self.out_dir
        for image, sample in zip(data_batch['inputs'], outputs):
            self.out_dir = os.path.join(runner.log_dir, folder, self.subfolder(sample))
            # The host names the picture of an image without a path by its number.
            super().after_test_iter(runner, self._number, dict(inputs=image[None]), [sample])
            self._number += 1
        self.out_dir = folder
