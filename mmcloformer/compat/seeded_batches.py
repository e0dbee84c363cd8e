"""Patch of a Runner's loaders: augmentations that a resumed run repeats.

Why: The host seeds a worker process when it starts. How many samples a worker has loaded since
    then is not known after resuming, so a resumed run would draw other augmentations.
Replaces, for the objects of one Runner only: `build_dataloader` of the Runner, `__iter__` of a
    loader's batch sampler and `skip` of its sampler. mmengine checks the classes of both to skip
    samples quickly, so their `__class__` stays the same.

This works with any data set, wrapped or not: the list of a batch's indices seeds the process that
iterates over it.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import Runner
from torch.utils.data import DataLoader


class SeededBatch(list[int]):
    """Indices of the samples of a batch; iterating over them seeds the random generators.

    A loader iterates once, in the process that loads the samples, while it loads them.

    Args:
        indices: Indices of the samples.
        seed: Seed of the batch.
    """

    def __init__(self, indices: list[int], seed: int) -> None:
        super().__init__(indices)
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)
        return super().__iter__()

    def __reduce__(self) -> tuple[Any, ...]:  # Sending it to a worker seeds nothing.
        return SeededBatch, (self[:], self.seed)


def mix_seeds(*numbers: int) -> int:
    """Hash non-negative numbers to one seed of 32 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_batches(runner: Runner) -> None:
    """Seed the loading of each batch from (seed, rank, epoch, position in the epoch).

    Args:
        runner: A Runner that has not built its loaders yet.
    """
    build = runner.build_dataloader

    def build_and_seed(*args: Any, **kwargs: Any) -> Any:
        loader = build(*args, **kwargs)
        if isinstance(loader, DataLoader) and loader.batch_sampler is not None:
            _seed_batches(runner, loader.batch_sampler)
        return loader

    runner.build_dataloader = build_and_seed


def _seed_batches(runner: Runner, batches: Any) -> None:
    sampler = getattr(batches, 'sampler', None)
    iterate = batches.__iter__
    skip: Any = getattr(sampler, 'skip', None)
    num_skipped = 0

    def iterate_and_seed(_: Any) -> Iterator[SeededBatch]:
        numbers = runner.seed, get_rank(), runner.epoch, getattr(sampler, 'epoch', 0)
        for position, batch in enumerate(iterate(), start=num_skipped):
            yield SeededBatch(batch, mix_seeds(*numbers, position))

    def skip_and_count(_: Any, num_samples: int) -> None:
        nonlocal num_skipped
        skip(num_samples)
        num_skipped = num_samples // batches.batch_size

    _override(batches, __iter__=iterate_and_seed)
    if skip is not None:
        _override(sampler, skip=skip_and_count)


def _override(instance: Any, **methods: Callable[..., Any]) -> None:
    """Override methods of one object; its `__class__` and name stay the same."""
    base = type(instance)
    instance.__class__ = type(base.__name__, (base,), dict(methods, __class__=base))
