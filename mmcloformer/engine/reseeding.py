"""Reseeds from (seed, iteration, rank), so that a resumed run repeats the same random draws.

The host saves no generator's state: a resumed run would draw other augmentations, drop paths,
proposals and mixtures than an uninterrupted one.
"""

from typing import Any

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed


@HOOKS.register_module()
class ReseedHook(Hook):
    """Reseed this process before every iteration.

    Processes draw different numbers, so that each drops other paths. What has to be equal in all
    of them is broadcast by the hosts (sizes of mmdet's BatchSyncRandomResize, mmengine's
    `sync_random_seed`, MoCo's shuffle) or drawn from a generator of its own (samplers).
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what is drawn before the first batch is loaded."""
        self._reseed(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model draws."""
        self._reseed(runner)

    def _reseed(self, runner: Runner) -> None:
        set_random_seed(mix_seeds(runner.seed, runner.iter, get_rank()))


def mix_seeds(*numbers: int) -> int:
    """Hash non-negative numbers to one seed of 32 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
