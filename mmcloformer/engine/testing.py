"""Hooks and metrics that tools/test.py adds to the host's test."""

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..config import HOSTS, ConfigView
from ..errors import ConfigError
from ..models.deploy import replace_backbones

# The visualization hook of each host, and the class that takes its place.
_VISUALIZATION = {
    'mmdet': ('DetVisualizationHook', 'DetFoldersVisualizationHook'),
    'mmpretrain': ('VisualizationHook', 'ClsFoldersVisualizationHook'),
    'mmseg': ('SegVisualizationHook', 'SegFoldersVisualizationHook'),
}


@HOOKS.register_module()
class OneWriterLoggerHook(LoggerHook):
    """Write the metrics of a test from the main process only.

    The host's LoggerHook writes the file from every process at the same time, which can mix
    their contents.
    """

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the metrics and write them to the JSON file."""
        if is_main_process():
            super().after_test_epoch(runner, metrics)


@HOOKS.register_module()
class HalfPrecisionHook(Hook):
    """Test with the backbones in half precision.

    Only during the iterations, because EMAHook exchanges the weights of the whole model before
    and after them.

    Args:
        dtype: `'bfloat16'` or `'float16'`.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def before_test_epoch(self, runner: Runner) -> None:
        """Forget the copies of an earlier test."""
        self.copies: dict[str, Any] = {}

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Put the copies into the places of the backbones."""
        if not self.copies:
            self.backbones = replace_backbones(runner.model, self.dtype)
            self.copies = {name: runner.model.get_submodule(name) for name in self.backbones}
        for name, part in self.copies.items():
            runner.model.set_submodule(name, part)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Put the backbones back."""
        for name, part in self.backbones.items():
            runner.model.set_submodule(name, part)


@HOOKS.register_module()
class BgrToRgbHook(Hook):
    """Reverse the channels of the images before mmpretrain's visualization hook draws them.

    That hook expects RGB, and the images are BGR.
    """

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Reverse the channels in the batch, which the model no longer needs."""
        inputs = data_batch['inputs']
        if isinstance(inputs, list):  # The versions of test-time augmentation; the last is drawn.
            inputs = inputs[-1]
        data_batch['inputs'] = inputs.flip(1)


class DumpLabelMaps(DumpResults):
    """Dump a segmentor's predictions without the logits, hundreds of megabytes per image."""

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Collect a batch of predictions."""
        kept = [{k: v for k, v in sample.items() if k != 'seg_logits'} for sample in data_samples]
        super().process(data_batch, kept)


def build_dump_metric(scope: str, path: str) -> DumpResults:
    """Build the metric that writes predictions to a pickle file.

    Args:
        scope: `default_scope` of the config.
        path: File to write.
    """
    if scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults  # Encodes masks as RLE.

        return DumpDetResults(out_file_path=path)
    return (DumpLabelMaps if scope == 'mmseg' else DumpResults)(out_file_path=path)


def draw_predictions(cfg: Config, folder: str) -> None:
    """Turn on the visualization hook for every image of the test.

    The host's hook is replaced by one that keeps the sub-folders of the images (`drawing`). A hook
    of another class draws as its own code says.

    Args:
        cfg: Config of a test, changed in place.
        folder: Folder for the pictures; a relative one is put into the folder of the run, as
            mmdet does.
    """
    view = ConfigView(cfg)
    scope = view.host
    if scope is None:
        raise ConfigError(f'--show-dir needs a config of one of {", ".join(HOSTS)}')
    host, replacement = _VISUALIZATION[scope]
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = ConfigDict()
    hook = cfg.default_hooks.get('visualization') or ConfigDict(type=host)
    cfg.default_hooks.visualization = hook
    is_hosts = view.resolve(hook, 'HOOKS') is view.resolve(f'{scope}.{host}', 'HOOKS')
    if is_hosts:
        import_module(f'.drawing.{scope}', __package__)  # Registers the replacement.
        hook.type = replacement
    if scope == 'mmdet':
        hook.update(draw=True, test_out_dir=folder)
        return
    if scope == 'mmpretrain':
        hook.update(enable=True, interval=1)
        cfg.custom_hooks.append(dict(type='BgrToRgbHook', priority='HIGH'))
    else:
        hook.update(draw=True, interval=1)
    if is_hosts:
        hook.out_dir = folder
    else:
        images = os.path.join(os.pardir, folder)  # Relative to the run's vis_data folder.
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend', img_save_dir=images)]
