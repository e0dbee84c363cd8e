"""Hooks for training: those that tools/train.py adds, and one for configs."""

import math
import time
from typing import Any

import torch
from mmengine.dist import broadcast, get_rank
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed

from ..checks.problem import render
from ..checks.schedule import late_warmups
from ..compat.seeded_batches import mix_seeds
from ..errors import DivergenceError, join_first


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop training at the first loss that is NaN or infinite, and never save such weights.

    Checks every iteration, without waiting for the GPU: the host's RuntimeInfoHook has already
    copied the losses to the CPU. mmdet's CheckInvalidLossHook checks every 50 iterations, does
    not check the weights before they are saved, and does not exist in the other hosts.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember the last checkpoint that was saved."""
        self.last_checkpoint = runner.message_hub.runtime_info.get('last_ckpt', 'none yet')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check the losses.

        Raises:
            DivergenceError: If one is not finite; names the iteration, the losses, the last
                checkpoint, and what to try.
        """
        scalars = runner.message_hub.log_scalars
        losses = {
            name: scalars[f'train/{name}'].current()
            for name in outputs or ()
            if 'loss' in name and f'train/{name}' in scalars
        }
        if not all(map(math.isfinite, losses.values())):
            values = join_first([f'{name} {value:.4g}' for name, value in losses.items()])
            raise self._error(f'the loss of iteration {runner.iter + 1} is not finite ({values})')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check the weights, since a finite loss can still have an infinite gradient.

        Raises:
            DivergenceError: If one is not finite; the checkpoint is not written.
        """
        names = [
            name for name, weight in runner.model.named_parameters() if not weight.isfinite().all()
        ]
        if names:
            raise self._error(
                f'{len(names)} weights are not finite, first {names[0]}; they were not saved'
            )

    def _error(self, problem: str) -> DivergenceError:
        return DivergenceError(
            f'{problem}. Last checkpoint before it: {self.last_checkpoint}. Try a lower learning '
            f'rate (optim_wrapper.optimizer.lr) or a longer warm-up, gradient clipping '
            f'(optim_wrapper.clip_grad.max_norm), with --amp optim_wrapper.dtype=bfloat16. '
            f'--resume restores the old learning rate; to lower it, start from the checkpoint '
            f'with --cfg-options load_from=CHECKPOINT.'
        )


def scheduler_groups(runner: Runner) -> list[list[Any]]:
    """Return the schedulers of each optimizer."""
    schedulers = runner.param_schedulers or []
    return [*schedulers.values()] if isinstance(schedulers, dict) else [schedulers]


@HOOKS.register_module()
class WarmUpHook(Hook):
    """Warn of a warm-up that is longer than the training."""

    def before_train(self, runner: Runner) -> None:
        """Log a warning for each such scheduler."""
        for each in scheduler_groups(runner):
            for warning in render(late_warmups(each, runner.max_epochs, runner.max_iters)):
                runner.logger.warning(warning)


@HOOKS.register_module()
class ReseedHook(Hook):
    """Reseed this process before every iteration, so that a resumed run repeats the same draws.

    The host saves no generator's state: a resumed run would draw other drop paths, proposals and
    mixtures than an uninterrupted one. `compat.seeded_batches` does this for augmentations.

    Each process draws its own numbers, so that drop paths differ between processes. The hosts
    broadcast what must be equal in all of them (sizes of mmdet's BatchSyncRandomResize, mmengine's
    `sync_random_seed`, MoCo's shuffle), or draw it from a separate generator (samplers).
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what is drawn before the first batch is loaded."""
        self._reseed(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model draws."""
        self._reseed(runner)

    def _reseed(self, runner: Runner) -> None:
        set_random_seed(mix_seeds(runner.seed, runner.iter, get_rank()))


@HOOKS.register_module()
class TimeLimitHook(Hook):
    """Stop an epoch-based training before the time limit of its job, to be resumed in the next.

    It stops after an epoch with a checkpoint, if the config saves checkpoints by epoch.

    Args:
        minutes: Time limit, counted from the start of training; None means no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.longest = 0.0

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self.start = self.last_stop = time.monotonic()

    def after_train_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Stop if the time to the next checkpoint, as long as any so far, exceeds the limit."""
        saving = [
            hook
            for hook in runner.hooks
            if isinstance(hook, CheckpointHook) and hook.by_epoch and hook.interval > 0
        ]
        if saving and not any(
            self.every_n_epochs(runner, hook.interval, hook.save_begin) for hook in saving
        ):
            return
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last_stop)
        self.last_stop = now
        left = self.seconds - (now - self.start)
        stop = torch.tensor(int(left < self.longest and runner.epoch + 1 < runner.max_epochs))
        broadcast(stop)  # The clocks of the processes differ.
        if stop:
            runner.train_loop.stop_training = True
            runner.logger.info(
                f'TimeLimitHook: stopping after epoch {runner.epoch + 1} of {runner.max_epochs}, '
                f'the {left:.0f} s left are too short for another; continue with --resume'
            )
