"""Checks that a warm-up of the learning rate ends before the training does."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim.scheduler import ConstantLR, LinearLR
from mmengine.registry import PARAM_SCHEDULERS

from ..errors import ConfigError

NEVER_STARTS = 'end should be larger than begin'
"""What a scheduler of the host raises whose `begin` is not before its `end`."""


def late_warmups(schedulers: Sequence[Any], max_epochs: int, max_iters: int) -> Iterator[str]:
    """Yield which warm-ups never reach the learning rate of the config.

    Args:
        schedulers: The host's schedulers of one optimizer, in the order of the config.
        max_epochs: Number of epochs of the run; an iteration-based run counts as one.
        max_iters: Number of iterations of the run.
    """
    for index, scheduler in enumerate(schedulers):
        name = type(scheduler).__name__
        if not _raises_rate(scheduler, name):
            continue
        by_epoch, steps = scheduler.by_epoch, scheduler.end - scheduler.begin
        run, unit = (max_epochs, 'epochs') if by_epoch else (max_iters, 'iterations')
        field = f'param_scheduler.{index} ({name})'
        if scheduler.end > run:
            advice = 'set its end to a tenth of the run or less'
            if by_epoch and max_epochs == 1:
                advice = 'set by_epoch=False and its end in iterations'
            yield (
                f'{field}: the warm-up ends after {scheduler.end} {unit}, but the run has '
                f'{run}, so training never reaches the learning rate of the config; {advice}, or '
                'train for longer'
            )
        elif steps == 1:
            yield (
                f'{field}: the warm-up has one step only ({unit} {scheduler.begin} to '
                f'{scheduler.end}), after which the learning rate stays as low; give it two steps '
                'or more, or remove it'
            )


def epoch_samples(dataset: Mapping[str, Any], samples: int) -> int | None:
    """Return the number of samples in an epoch; None if a wrapper changes it in its own way.

    Args:
        dataset: The config of the training dataset, or of a wrapper.
        samples: Number of samples of the datasets inside of it.
    """
    kind = str(dataset.get('type'))
    if kind.endswith('RepeatDataset'):
        inner = epoch_samples(dataset['dataset'], samples)
        return inner and inner * int(dataset['times'])
    plain = not any('dataset' in each or 'datasets' in each for each in dataset.get('datasets', []))
    return samples if 'dataset' not in dataset and plain else None


def schedule_problems(cfg: Config, samples: int | None) -> tuple[list[str], list[str]]:
    """Check the schedule of a config before training, as if it ran on one GPU.

    Args:
        cfg: The whole config; its scope must be the default scope.
        samples: Number of training samples per epoch; None if unknown.

    Returns:
        Problems, at which the host stops, and warnings.
    """
    schedulers, loop = cfg.get('param_scheduler'), cfg.get('train_cfg') or {}
    loader = cfg.get('train_dataloader') or {}
    several = isinstance(schedulers, Mapping) and 'type' not in schedulers
    if not schedulers or not samples or several:
        return [], []
    batches = samples / (loader.get('batch_size') or 1)
    length = loader.get('num_batch_per_epoch') or (
        math.floor(batches) if loader.get('drop_last') else math.ceil(batches)
    )
    max_epochs = loop.get('max_epochs') or 1
    max_iters = loop.get('max_iters') or max_epochs * length
    settings = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    built, problems = [], []
    for index, setting in enumerate(settings):
        try:
            built.append(_build(setting, max_epochs, max_iters, length))
        except ValueError as error:
            if NEVER_STARTS not in str(error):
                continue
            built.append(None)
            problems.append(f'param_scheduler.{index} ({setting["type"]}): {never_starts(error)}')
        except Exception:  # Whatever else is wrong with the config is not the schedule's.
            built.append(None)
    return problems, list(late_warmups(built, max_epochs, max_iters))


def never_starts(error: Exception) -> ConfigError:
    """Return an explanation of the host's error about a scheduler that would never start.

    Args:
        error: What the host raised.
    """
    return ConfigError(
        f'a scheduler of param_scheduler starts when the run has already ended ({error}; end is by '
        'default the length of the run, in epochs or, with by_epoch=False, in iterations). Set its '
        'begin before the end of the run, or train for longer'
    )


def _build(setting: Mapping[str, Any], max_epochs: int, max_iters: int, length: int) -> Any:
    """Build a scheduler as the Runner does, for an optimizer of its own."""
    settings = dict(setting)
    settings.setdefault('end', max_epochs if settings.get('by_epoch', True) else max_iters)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return PARAM_SCHEDULERS.build(
        settings, default_args=dict(optimizer=optimizer, epoch_length=length)
    )


def _raises_rate(scheduler: Any, name: str) -> bool:
    if isinstance(scheduler, LinearLR):
        return bool(scheduler.start_factor < scheduler.end_factor)
    if isinstance(scheduler, ConstantLR):
        return bool(scheduler.factor < 1)
    return name == 'QuadraticWarmupLR'  # mmdet's.
