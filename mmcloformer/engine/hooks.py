"""Hooks for the host's Runner: those that the tools add, and one for configs."""

import math
import time
from typing import Any

import torch
from mmengine.dist import broadcast, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..checkpoint import check_whole_state, get_state_dict
from ..errors import DivergenceError


@HOOKS.register_module()
class WholeCheckpointHook(Hook):
    """Refuse a checkpoint that does not fill the whole model.

    For testing and resuming, where the host would go on with whatever did not match left at
    its random initialisation.
    """

    # After the EMA hook, which swaps weights inside the checkpoint.
    priority = 'LOWEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare before the host loads.

        Raises:
            CheckpointError: If keys or shapes differ; names the first few.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_whole_state(model, get_state_dict(checkpoint, 'the checkpoint'))


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop training at the first loss that is NaN or infinite, and save no such weights.

    Every iteration is looked at, and no GPU waited for: the host's RuntimeInfoHook has the
    losses on the CPU already. mmdet's CheckInvalidLossHook looks every 50 iterations, saves
    whatever the weights are, and is not there for the other hosts.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note which checkpoint is saved by now."""
        self.last_checkpoint = runner.message_hub.runtime_info.get('last_ckpt', 'none yet')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Look at the losses.

        Raises:
            DivergenceError: If one is not finite; names the iteration, the losses, the last
                checkpoint, and what to try.
        """
        scalars = runner.message_hub.log_scalars
        losses = {
            name: scalars[f'train/{name}'].current()
            for name in outputs
            if 'loss' in name and f'train/{name}' in scalars
        }
        if not all(map(math.isfinite, losses.values())):
            listed = ', '.join(f'{name} {value:.4g}' for name, value in losses.items())
            raise self._error(f'the loss of iteration {runner.iter + 1} is not finite ({listed})')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Look at the weights, which the step after a finite loss can spoil.

        Raises:
            DivergenceError: If one is not finite, as above.
        """
        spoilt = [
            name for name, weight in runner.model.named_parameters() if not weight.isfinite().all()
        ]
        if spoilt:
            raise self._error(
                f'{len(spoilt)} weights are not finite, first {spoilt[0]}; they were not saved'
            )

    def _error(self, what: str) -> DivergenceError:
        return DivergenceError(
            f'{what}. Last checkpoint before it: {self.last_checkpoint}. Try a lower learning '
            f'rate (optim_wrapper.optimizer.lr) or a longer warm-up, gradient clipping '
            f'(optim_wrapper.clip_grad.max_norm), with --amp optim_wrapper.dtype=bfloat16. '
            f'--resume restores the learning rate as it was; to lower it, start from the '
            f'checkpoint by --cfg-options load_from=CHECKPOINT.'
        )


@HOOKS.register_module()
class OneWriterLoggerHook(LoggerHook):
    """Have the main process alone write the metrics of a test. All of the host's do, at once and
    into one file, which can then hold the end of another's."""

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log, and write the file."""
        if is_main_process():
            super().after_test_epoch(runner, metrics)


@HOOKS.register_module()
class TimeLimitHook(Hook):
    """End a training by epochs early enough to be resumed, where jobs are short.

    The epochs' checkpoints are the host's (`default_hooks.checkpoint.interval=1`).

    Args:
        minutes: Time that a process has, from the start of its training; None is no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.longest = 0.0

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self.start = self.epoch_end = time.monotonic()

    def after_train_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Stop unless another epoch, as long as the longest so far, would fit."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self.epoch_end)
        self.epoch_end = now
        left = self.seconds - (now - self.start)
        stop = torch.tensor(int(left < self.longest and runner.epoch + 1 < runner.max_epochs))
        broadcast(stop)  # All processes or none, whatever their clocks say.
        if stop:
            runner.train_loop.stop_training = True
            runner.logger.info(
                f'TimeLimitHook: stopping after epoch {runner.epoch + 1} of {runner.max_epochs}, '
                f'{left:.0f} s are too few for another; go on with --resume'
            )
