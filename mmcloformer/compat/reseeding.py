"""Patch of a Runner's training data: augmentations that a resumed run repeats.

Name: `reseed_augmentation`.
Why: The host seeds a worker when it starts. How many samples a worker has loaded since then is
    not known after resuming, so a resumed run would draw other augmentations. mmengine has no
    extension point that reaches both the sampler and the dataset of a loader: a wrapper around
    the dataset would hide it from hooks that replace its pipeline, and mmengine skips samples
    quickly on resuming only with torch's own BatchSampler.
Replaces, for the objects of one Runner only: `build_dataloader` of the Runner, `__iter__` and
    `skip` of a loader's sampler, `__getitem__` and `__reduce__` of its dataset. Both keep their
    type for `isinstance`.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..engine.reseeding import mix_seeds


class SeededIndex(int):
    """Index of a sample, with the seed for its augmentation."""

    seed: int


def reseed_augmentation(runner: Runner) -> None:
    """Seed the augmentation of each sample from (seed, rank, epoch, position in the epoch).

    Workers do not know the position of a sample in a resumed run; the sampler does, and passes
    the seed along with the index.

    Args:
        runner: A Runner that has not built its loaders yet.
    """
    build = runner.build_dataloader

    def build_and_seed(*args: Any, **kwargs: Any) -> Any:
        loader = build(*args, **kwargs)
        if isinstance(loader, DataLoader):
            _seed_samples(loader, runner.seed)
        return loader

    runner.build_dataloader = build_and_seed


def _seed_samples(loader: DataLoader[Any], seed: int) -> None:
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    # Other data, such as a list, draw nothing when they are loaded.
    is_map_style = isinstance(loader.dataset, Dataset) and not isinstance(
        loader.dataset, IterableDataset
    )
    if sampler is None or not is_map_style:
        return
    rank = get_rank()

    def iterate(self: Any) -> Iterator[int]:
        epoch, position = getattr(self, 'epoch', 0), getattr(self, '_num_skipped', 0)
        for index in self.original_class.__iter__(self):
            seeded = SeededIndex(index)
            seeded.seed = mix_seeds(seed, rank, epoch, position)
            position += 1
            yield seeded

    def skip(self: Any, num_samples: int) -> None:
        self.original_class.skip(self, num_samples)
        self._num_skipped = num_samples

    has_skip = hasattr(sampler, 'skip')
    _override_methods(sampler, __iter__=iterate, **(dict(skip=skip) if has_skip else {}))
    _override_loading(loader.dataset)


def _override_methods(instance: Any, **methods: Callable[..., Any]) -> None:
    """Give one object a subclass of its class, which has these methods and the same name.

    The class that it had is its attribute `original_class`.
    """
    base = type(instance)
    instance.__class__ = type(base.__name__, (base,), dict(methods, original_class=base))


def _override_loading(dataset: Any) -> None:
    _override_methods(dataset, __getitem__=_load_sample, __reduce__=_reduce)


def _load_sample(dataset: Any, index: int) -> Any:
    if isinstance(index, SeededIndex):
        random.seed(index.seed)
        np.random.seed(index.seed)
        torch.manual_seed(index.seed)
        index = int(index)
    return dataset.original_class.__getitem__(dataset, index)


def _reduce(dataset: Any) -> tuple[Any, ...]:
    # Spawned workers unpickle the dataset and look classes up by name, which fails for this one.
    return _rebuild, (dataset.original_class, dataset.__dict__)


def _rebuild(base: type, state: dict[str, Any]) -> Any:
    dataset: Any = object.__new__(base)
    dataset.__dict__.update(state)
    _override_loading(dataset)
    return dataset
