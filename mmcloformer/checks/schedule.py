"""Checks that training ends, and that a warm-up of the learning rate ends before it."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler, RepeatDataset
from mmengine.optim.scheduler import ConstantLR, LinearLR
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop

from ..config import ConfigView
from .problem import Fault, Problem

_QUADRATIC = 'mmdet.engine.schedulers'
NEVER_STARTS = 'end should be larger than begin'
"""What a scheduler of the host raises whose `begin` is not before its `end`."""
NEVER_STARTS_FAULT = Fault(
    'a scheduler starts when the run has already ended',
    'set its begin before the end of the run, or train for longer: its end is by default the '
    'length of the run, in epochs or, with by_epoch=False, in iterations',
)


def late_warmups(schedulers: Sequence[Any], max_epochs: int, max_iters: int) -> Iterator[Problem]:
    """Yield which warm-ups never reach the learning rate of the config.

    Args:
        schedulers: The host's schedulers of one optimizer, in the order of the config.
        max_epochs: Number of epochs of the run; an iteration-based run counts as one.
        max_iters: Number of iterations of the run.
    """
    for index, scheduler in enumerate(schedulers):
        if not _raises_rate(scheduler):
            continue
        by_epoch, steps = scheduler.by_epoch, scheduler.end - scheduler.begin
        run, unit = (max_epochs, 'epochs') if by_epoch else (max_iters, 'iterations')
        field, name = f'param_scheduler.{index}', type(scheduler).__name__
        if scheduler.end > run:
            advice = 'set its end to a tenth of the run or less'
            if by_epoch and max_epochs == 1:
                advice = 'set by_epoch=False and its end in iterations'
            found = (
                f'the warm-up {name} ends after {scheduler.end} {unit}, but the run has {run}, so '
                'training never reaches the learning rate of the config'
            )
            yield Problem(field, found, f'{advice}, or train for longer', severity='warning')
        elif steps == 1:
            found = (
                f'the warm-up {name} has one step only ({unit} {scheduler.begin} to '
                f'{scheduler.end}), after which the learning rate stays as low'
            )
            remedy = 'give it two steps or more, or remove it'
            yield Problem(field, found, remedy, severity='warning')


def schedule_problems(view: ConfigView, samples: int | None) -> Iterator[Problem]:
    """Check the schedule of a config before training, as if it ran on one GPU.

    Args:
        view: The config; its scope must be the default scope.
        samples: Number of samples of the training sets, without their wrappers.
    """
    loader, loop = view.loader('train'), view.cfg.get('train_cfg') or {}
    samples = _epoch_samples(view, loader.get('dataset'), samples)
    schedulers = view.cfg.get('param_scheduler')
    if isinstance(schedulers, Mapping):  # One scheduler, or those of several optimizers by name.
        schedulers = [schedulers] if 'type' in schedulers else None
    if not schedulers or not samples:
        return
    batches = samples / (loader.get('batch_size') or 1)
    length = loader.get('num_batch_per_epoch') or (
        math.floor(batches) if loader.get('drop_last') else math.ceil(batches)
    )
    max_epochs = loop.get('max_epochs') or 1
    max_iters = loop.get('max_iters') or max_epochs * length
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    default_args = dict(optimizer=optimizer, epoch_length=length)
    built = []
    for index, setting in enumerate(schedulers):
        end = max_epochs if setting.get('by_epoch', True) else max_iters
        try:
            built.append(
                PARAM_SCHEDULERS.build(dict(end=end) | dict(setting), default_args=default_args)
            )
        except Exception as error:  # Whatever else is wrong with it, the host reports.
            built.append(None)
            if NEVER_STARTS in str(error):
                found, remedy = NEVER_STARTS_FAULT
                yield Problem(f'param_scheduler.{index}', f'{found} ({error})', remedy)
    yield from late_warmups(built, max_epochs, max_iters)


def loop_problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield the loops over a data set whose sampler never ends.

    Args:
        view: The config.
        splits: Which of `train`, `val` and `test` to check.
    """
    loop = view.entry(view.cfg.get('train_cfg'), 'train_cfg', 'LOOPS')
    by_epoch = loop.settings.get('by_epoch')
    if loop.kind:  # A project's own loop may end an epoch by itself.
        by_epoch = getattr(loop.kind, 'run_epoch', None) is EpochBasedTrainLoop.run_epoch
    infinite = [InfiniteSampler]
    if view.host == 'mmdet':
        from mmdet.datasets.samplers import MultiSourceSampler

        infinite.append(MultiSourceSampler)
    for split in dict.fromkeys(splits):
        field = f'{split}_dataloader.sampler'
        sampler = view.entry(view.loader(split).get('sampler'), field, 'DATA_SAMPLERS')
        if sampler.is_a(*infinite) and (by_epoch or split != 'train'):
            what, advice = 'evaluation', "set its type to 'DefaultSampler'"
            if split == 'train':
                what = 'epoch'
                advice += ", or train_cfg to dict(type='IterBasedTrainLoop', max_iters=...)"
            name = sampler.kind.__name__
            yield Problem(field, f'{name} never ends, and so no {what} does', advice)


def _epoch_samples(view: ConfigView, dataset: Any, samples: int | None) -> int | None:
    """Return the number of samples in an epoch; None if a wrapper changes it in its own way."""
    wrapper = view.entry(dataset, '', 'DATASETS')
    inner = wrapper.settings.get('dataset')
    if wrapper.is_a(RepeatDataset):
        inside = _epoch_samples(view, inner, samples)
        return inside and inside * int(wrapper.settings['times'])
    parts = wrapper.settings.get('datasets') or []
    plain = not any('dataset' in each or 'datasets' in each for each in parts)
    return samples if inner is None and plain else None


def _raises_rate(scheduler: Any) -> bool:
    if isinstance(scheduler, LinearLR):
        return bool(scheduler.start_factor < scheduler.end_factor)
    if isinstance(scheduler, ConstantLR):
        return bool(scheduler.factor < 1)
    # mmdet is imported if a scheduler of its own is.
    return isinstance(scheduler, getattr(sys.modules.get(_QUADRATIC), 'QuadraticWarmupLR', ()))
