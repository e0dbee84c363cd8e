"""Pictures of a test's predictions, for `tools/test.py --show-dir`."""

import os
from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..config import HOSTS, ConfigView
from ..errors import ConfigError

# The visualization hook of each host, and the fields that let it draw every image.
_HOST_HOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    'mmdet': ('DetVisualizationHook', dict(draw=True)),
    'mmseg': ('SegVisualizationHook', dict(draw=True, interval=1)),
    'mmpretrain': ('VisualizationHook', dict(enable=True, interval=1)),
}


@HOOKS.register_module()
class PicturesHook(Hook):
    """Draw every image of a test, with the sub-folders and the settings of the host's hook.

    The hosts' own hooks write all pictures into one folder under the base names of the images. Of
    several images with the same name, mmdet and mmpretrain keep the last picture only.

    Args:
        host: `mmdet`, `mmseg` or `mmpretrain`.
        folder: Folder for the pictures; a relative one is put into the folder of the run.
        backend_args: As in mmengine, for reading the images.
        **settings: Arguments of the visualizer.
    """

    def __init__(
        self, host: str, folder: str, backend_args: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        self.host = host
        self.folder = folder
        self.backend_args = backend_args
        self.settings = settings
        self.number = 0

    def before_test(self, runner: Runner) -> None:
        """Find the folder of all images; say which are drawn in a distributed test."""
        self.root = find_root(runner.test_dataloader.dataset)
        if get_world_size() > 1:
            runner.logger.warning(
                f'--show-dir draws the images of the first of {get_world_size()} processes only; '
                'to draw all of them, test in one process'
            )

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draw each image of the batch. The pictures have the host's names."""
        for index, sample in enumerate(outputs):
            path = sample.get('img_path')
            name = os.path.basename(path) if path else str(self.number)
            folder = os.path.dirname(os.path.abspath(path)) if path else self.root
            self.number += 1
            settings = dict(self.settings, data_sample=sample)
            if self.host == 'mmpretrain':
                file = f'{name}_0.png'
                draw = runner.visualizer.visualize_cls
                settings['image'] = _to_rgb(data_batch['inputs'], index)
            else:
                file = name if self.host == 'mmdet' else f'test_{name}_{self.number}.png'
                draw = runner.visualizer.add_datasample
                settings['image'] = mmcv.imfrombytes(
                    get(path, backend_args=self.backend_args), channel_order='rgb'
                )
            out = os.path.join(runner.log_dir, self.folder, os.path.relpath(folder, self.root))
            draw(name=name, out_file=os.path.join(out, file), step=self.number, **settings)


def _to_rgb(inputs: Any, index: int) -> Any:
    """Return an image of a classifier's batch, which is in BGR."""
    if isinstance(inputs, list) and inputs[0].ndim == 4:  # Versions of test-time augmentation.
        inputs = inputs[-1]
    return inputs[index].flip(0).permute(1, 2, 0).cpu().numpy().astype(np.uint8)


def draw_predictions(cfg: Config, folder: str) -> None:
    """Add a `PicturesHook` in place of the host's visualization hook.

    A custom hook is kept and set to draw.

    Args:
        cfg: Config of a test, changed in place.
        folder: As for `PicturesHook`.

    Raises:
        ConfigError: If the config is of no host.
    """
    view = ConfigView(cfg)
    host = view.host
    if host is None:
        raise ConfigError(f'--show-dir needs a config of one of {", ".join(HOSTS)}')
    name, drawing = _HOST_HOOKS[host]
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = ConfigDict()
    hook = dict(cfg.default_hooks.get('visualization') or {})
    kind = view.resolve(hook, 'HOOKS') if hook else None
    if kind is None or kind is view.resolve(f'{host}.{name}', 'HOOKS'):
        settings = {
            key: value
            for key, value in hook.items()
            if key not in ('type', 'draw', 'enable', 'interval', 'test_out_dir', 'out_dir')
        }
        if 'score_thr' in settings:
            settings['pred_score_thr'] = settings.pop('score_thr')
        hook = dict(settings, type='PicturesHook', host=host, folder=folder)
    else:
        hook.update(drawing)
        if host == 'mmdet':
            hook['test_out_dir'] = folder
        else:
            images = os.path.join(os.pardir, folder)  # Relative to the run's vis_data folder.
            cfg.visualizer.vis_backends = [dict(type='LocalVisBackend', img_save_dir=images)]
    cfg.default_hooks.visualization = hook


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
