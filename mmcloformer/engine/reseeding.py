"""Random numbers as a function of the seed and of how far training is, whatever happened before:
a resumed run draws what the undisturbed one would have drawn.

The host saves no generator's state, so by itself a resumed run draws other augmentations, drop
paths, proposals and mixtures.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed
from torch.utils.data import DataLoader, Dataset, IterableDataset


@HOOKS.register_module()
class ReseedHook(Hook):
    """Seed what the model draws, and what this process draws around it, by the iteration."""

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what is drawn before the first batch is there."""
        set_random_seed(_mix(runner.seed, runner.iter))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model draws."""
        set_random_seed(_mix(runner.seed, runner.iter))


class Draw(int):
    """The index of a sample that knows how to seed its augmentation."""

    seed: int


def reseed_augmentation(runner: Runner) -> None:
    """Have every sample that the runner's loaders load seeded by its place in the run.

    Workers live for an epoch, for all epochs or not at all, and do not know how many samples were
    drawn before they started; the sampler does, so it tells with every index.

    Args:
        runner: A Runner that has not built its loaders yet.
    """
    build = runner.build_dataloader

    def build_reseeding(*args: Any, **kwargs: Any) -> Any:
        loader = build(*args, **kwargs)
        if isinstance(loader, DataLoader):
            _number_draws(loader, runner.seed)
        return loader

    runner.build_dataloader = build_reseeding


def _number_draws(loader: DataLoader[Any], seed: int) -> None:
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    indexed = isinstance(loader.dataset, Dataset) and not isinstance(
        loader.dataset, IterableDataset
    )
    if sampler is None or not indexed:  # A list draws nothing.
        return
    rank = get_rank()

    def draw(self: Any) -> Iterator[int]:
        epoch, position = getattr(self, 'epoch', 0), getattr(self, '_skipped', 0)
        for index in self.of_host.__iter__(self):
            numbered = Draw(index)
            numbered.seed = _mix(seed, rank, epoch, position)
            position += 1
            yield numbered

    def skip(self: Any, number: int) -> None:
        self.of_host.skip(self, number)
        self._skipped = number

    _override(sampler, __iter__=draw, **(dict(skip=skip) if hasattr(sampler, 'skip') else {}))
    _seed_loading(loader.dataset)


def _seed_loading(dataset: Any) -> None:
    _override(dataset, __getitem__=_load, __reduce__=_reduce)


def _load(dataset: Any, index: int) -> Any:
    if isinstance(index, Draw):
        random.seed(index.seed)
        np.random.seed(index.seed)
        torch.manual_seed(index.seed)
        index = int(index)
    return dataset.of_host.__getitem__(dataset, index)


def _override(instance: Any, **methods: Callable[..., Any]) -> None:
    """Give one object other methods and leave it what it is to all who hold it or ask for its
    type. The host's class is its attribute `of_host`."""
    base = type(instance)
    instance.__class__ = type(base.__name__, (base,), dict(methods, of_host=base))


def _reduce(dataset: Any) -> tuple[Any, ...]:
    # For workers that are spawned: they find classes by name, this one has none.
    return _rebuild, (dataset.of_host, dataset.__dict__)


def _rebuild(base: type, state: dict[str, Any]) -> Any:
    dataset: Any = object.__new__(base)
    dataset.__dict__.update(state)
    _seed_loading(dataset)
    return dataset


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
