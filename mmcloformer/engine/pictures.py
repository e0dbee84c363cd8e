"""Pictures of a test's predictions, for `tools/test.py --show-dir`."""

import os
from collections.abc import Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..config import ConfigView

_VISUALIZERS = dict(
    mmdet='mmdet.DetLocalVisualizer',
    mmseg='mmseg.SegLocalVisualizer',
    mmpretrain='mmpretrain.UniversalVisualizer',
)


@HOOKS.register_module()
class PicturesHook(Hook):
    """Draw every image of a test into the sub-folder and under the name of the image.

    The hosts' own hooks write all pictures into one folder under the base names of the images. Of
    several images with the same name, mmdet and mmpretrain keep the last picture only.

    Args:
        folder: Folder for the pictures; a relative one is put into the folder of the run.
        backend_args: As in mmengine, for reading the images.
        **settings: Arguments of the visualizer.
    """

    def __init__(
        self, folder: str, backend_args: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.backend_args = backend_args
        self.settings = settings
        self.number = 0

    def before_test(self, runner: Runner) -> None:
        """Find the folder of all images; say which are drawn in a distributed test."""
        self.root = find_root(runner.test_dataloader.dataset)
        meta = runner.visualizer.dataset_meta or {}
        palette = meta.get('palette')
        if palette is not None:
            palette = fill_palette(palette, len(meta.get('classes') or ()))
            runner.visualizer.dataset_meta = dict(meta, palette=palette)
        if get_world_size() > 1:
            runner.logger.warning(
                f'--show-dir draws the images of the first of {get_world_size()} processes only; '
                'to draw all of them, test in one process'
            )

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draw each image of the batch. An image without a path is named by its number.

        Where OpenCV cannot write the format of an image, `.png` is added to the name.
        """
        visualizer = runner.visualizer
        for index, sample in enumerate(outputs):
            self.number += 1
            path = sample.get('img_path')
            name = os.path.relpath(os.path.abspath(path), self.root) if path else ''
            if hasattr(visualizer, 'visualize_cls'):
                draw, image = visualizer.visualize_cls, _to_rgb(data_batch['inputs'], index)
            else:
                draw = visualizer.add_datasample
                content = get(path, backend_args=self.backend_args)
                image = mmcv.imfrombytes(content, channel_order='rgb')
            name = name or str(self.number)
            if not cv2.haveImageWriter(name):
                name += '.png'
            out_file = os.path.join(runner.log_dir, self.folder, name)
            draw(name=name, image=image, data_sample=sample, out_file=out_file, **self.settings)


def _to_rgb(inputs: Any, index: int) -> Any:
    """Return an image of a classifier's batch, which is in BGR."""
    if isinstance(inputs, list) and inputs[0].ndim == 4:  # Versions of test-time augmentation.
        inputs = inputs[-1]
    return inputs[index].flip(0).permute(1, 2, 0).cpu().numpy().astype(np.uint8)


def fill_palette(palette: Any, number: int) -> Any:
    """Add random colours to those of a data set: mmdet's visualizer needs one for each class.

    Args:
        palette: Colours as red, green and blue; CocoDataset has 80 for any number of classes. The
            name of a palette, or one colour for all classes, is returned as it is.
        number: Number of classes.
    """
    if len(palette) and isinstance(palette[0], (int, str)):
        return palette
    more = np.random.RandomState(42).randint(0, 256, (number, 3)).tolist()
    return [tuple(color) for color in (*palette, *more[len(palette) :])]


def draw_predictions(cfg: Config, folder: str) -> None:
    """Add a `PicturesHook` with the settings of the host's visualization hook.

    Args:
        cfg: Config of a test, changed in place.
        folder: As for `PicturesHook`.

    Raises:
        ConfigError: If the config is of no host.
    """
    host = ConfigView(cfg).require_host()
    theirs = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type=_VISUALIZERS[host])
    names = dict(score_thr='pred_score_thr', backend_args='backend_args')
    # mmpretrain's hook gives the arguments that it does not have to the visualizer.
    if host == 'mmpretrain':
        own = ('type', '_scope_', 'priority', 'enable', 'interval', 'show', 'out_dir')
        names = {name: name for name in theirs if name not in own}
    settings = {ours: theirs[name] for name, ours in names.items() if name in theirs}
    hook = dict(settings, type='PicturesHook', folder=folder)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


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
