"""Where the picture of an image goes."""

import os
from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner


class KeepFolders:
    """Mixin for the visualization hook of a host: finds the sub-folder for each picture."""

    def before_test(self, runner: Runner) -> None:
        """Find the folder of all images; say which are drawn in a distributed test."""
        super().before_test(runner)  # type: ignore[misc]
        self._root = find_root(runner.test_dataloader.dataset)
        if get_world_size() > 1:
            runner.logger.warning(
                f'--show-dir draws the images of the first of {get_world_size()} processes only; '
                'to draw all of them, test in one process'
            )

    def subfolder(self, sample: Any) -> str:
        """Return the folder of a sample's image, relative to the one that has all images.

        Args:
            sample: Data sample of a host.
        """
        path = sample.get('img_path')
        return os.path.relpath(os.path.dirname(os.path.abspath(path)), self._root) if path else ''


def find_root(dataset: Any) -> str:
    """Return the deepest folder that has all images of a data set.

    Args:
        dataset: Data set of a host, maybe in a wrapper.

    Returns:
        An absolute path, `/` if the data set does not say where its images are.
    """
    if not hasattr(dataset, 'get_data_info'):
        return os.path.abspath(os.sep)
    paths = (dataset.get_data_info(index).get('img_path') for index in range(len(dataset)))
    folders = {os.path.dirname(os.path.abspath(path)) for path in paths if isinstance(path, str)}
    return os.path.commonpath(folders) if folders else os.path.abspath(os.sep)
