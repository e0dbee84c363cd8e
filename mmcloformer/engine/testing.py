"""Hooks and metrics that tools/test.py adds to the host's test."""

from collections.abc import Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..models.deploy import replace_backbones


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


class DumpLabelMaps(DumpResults):
    """Dump a segmentor's predictions without the logits, hundreds of megabytes per image."""

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Collect a batch of predictions."""
        kept = [{k: v for k, v in sample.items() if k != 'seg_logits'} for sample in data_samples]
        super().process(data_batch, kept)


def build_dump_metric(host: str | None, path: str) -> DumpResults:
    """Build the metric that writes predictions to a pickle file.

    Args:
        host: The host of the config.
        path: File to write.
    """
    if host == 'mmdet':
        from mmdet.evaluation import DumpDetResults  # Encodes masks as RLE.

        return DumpDetResults(out_file_path=path)
    return (DumpLabelMaps if host == 'mmseg' else DumpResults)(out_file_path=path)
