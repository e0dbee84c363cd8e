"""Comparing the optimizer and schedule of a checkpoint with those of the config."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ..errors import CheckpointError

# What changes during training, and what follows from other fields.
_PROGRESS = {
    'last_step', 'verbose', 'best', 'num_bad_epochs', 'cooldown_counter', 'rule_worse',
    'base_values', 'total_iters', 'cumulative_periods', 'optimizer', 'param_name',
}  # fmt: skip
_STEPS = {'begin', 'end', 'milestones', 'step_size', 'T_max', 'total_steps', 'periods'}
# How an optimizer computes, not what.
_IMPLEMENTATION = {
    'params', 'param_names', 'foreach', 'fused', 'capturable', 'differentiable', 'maximize',
}  # fmt: skip
_MAX_FIELDS = 8


@HOOKS.register_module()
class ScheduleStateHook(Hook):
    """Warn about fields of optimizer and schedule that resuming takes from the checkpoint.

    The host restores the whole state, so that other values in the config have no effect.
    """

    # After the checks of the weights.
    priority = 'LOWEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: Mapping[str, Any]) -> None:
        """Compare, before the host restores the state.

        Raises:
            CheckpointError: If the optimizer has other groups of parameters, which torch refuses.
        """
        found = [*_optimizer_changes(runner, checkpoint), *_schedule_changes(runner, checkpoint)]
        if found:
            rest = len(found) - _MAX_FIELDS
            lines = [*found[:_MAX_FIELDS], *([f'and {rest} more'] if rest > 0 else [])]
            listed = '\n'.join(f'  {line}' for line in lines)
            runner.logger.warning(
                f'resuming restores optimizer and schedule of the checkpoint, so these fields of '
                f'the config have no effect:\n{listed}\nTo train with the values of the config, '
                f'start a new run from the weights: --cfg-options load_from=CHECKPOINT, without '
                f'--resume.'
            )


def _optimizer_changes(runner: Runner, checkpoint: Mapping[str, Any]) -> Iterator[str]:
    wrapper, saved = runner.optim_wrapper, checkpoint.get('optimizer')
    if not isinstance(saved, Mapping):
        return
    if isinstance(wrapper, OptimWrapperDict):
        parts = [(f'optim_wrapper.{name}', part, saved.get(name)) for name, part in wrapper.items()]
    else:
        parts = [('optim_wrapper', wrapper, saved)]
    for path, part, state in parts:
        old = state.get('param_groups') if isinstance(state, Mapping) else None
        if old is not None and hasattr(part, 'optimizer'):
            groups = part.optimizer.param_groups
            # The strategies of a FlexibleRunner may regroup the parameters.
            yield from _group_changes(f'{path}.optimizer', groups, old, isinstance(runner, Runner))


def _group_changes(
    path: str, own: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]], is_plain: bool
) -> Iterator[str]:
    sizes, old_sizes = ([len(group['params']) for group in groups] for groups in (own, old))
    if sizes != old_sizes and is_plain:
        raise CheckpointError(
            f'the checkpoint has {len(old)} parameter groups with {sum(old_sizes)} parameters in '
            f'its optimizer, {path} of this config {len(own)} with {sum(sizes)}: resume with the '
            f'optim_wrapper (constructor, paramwise_cfg) and frozen layers that the run was '
            f'started with, or start a new run from the weights: --cfg-options '
            f'load_from=CHECKPOINT, without --resume'
        )
    seen = set()
    for index, (group, old_group) in enumerate(zip(own, old)):
        for key in sorted(group.keys() & old_group.keys() - _IMPLEMENTATION):
            name = key.removeprefix('initial_')
            # Changed by the schedule.
            is_current = f'initial_{key}' in group.keys() & old_group.keys()
            value, old_value = _plain(group[key]), _plain(old_group[key])
            if name not in seen and not is_current and value != old_value:
                seen.add(name)
                where = f' (parameter group {index})' if len(own) > 1 else ''
                yield f'{path}.{name}{where}: {old_value} is used, {value} in the config'
        lost, new = old_group.keys() - group.keys(), group.keys() - old_group.keys()
        lost = {key for key in lost if not key.startswith('initial_')}
        if index == 0 and lost - _IMPLEMENTATION and new - _IMPLEMENTATION:
            yield f'{path}.type: the state is of an optimizer with {", ".join(sorted(lost))}'


def _schedule_changes(runner: Runner, checkpoint: Mapping[str, Any]) -> Iterator[str]:
    own, old = runner.param_schedulers, checkpoint.get('param_schedulers')
    if isinstance(own, Mapping) and isinstance(old, Mapping):
        pairs = [(f'param_scheduler.{name}', own[name], old.get(name, [])) for name in own]
    elif isinstance(own, Sequence) and isinstance(old, Sequence):
        pairs = [('param_scheduler', own, old)]
    else:
        return
    for path, schedulers, states in pairs:
        if len(schedulers) != len(states):
            yield (
                f'{path}: {len(states)} schedules in the checkpoint, {len(schedulers)} in the '
                f'config; the host pairs them in order'
            )
        for index, (scheduler, state) in enumerate(zip(schedulers, states)):
            yield from _state_changes(f'{path}.{index}', scheduler, state)


def _state_changes(path: str, scheduler: Any, old: Mapping[str, Any]) -> Iterator[str]:
    kind = type(scheduler).__name__
    own = scheduler.state_dict()
    own, old = (
        {k: v for k, v in state.items() if k not in _PROGRESS and k[0] != '_' and not callable(v)}
        for state in (own, old)
    )
    if own.keys() != old.keys():
        yield (
            f'{path}: the state of a schedule with {", ".join(sorted(old))}; a {kind} has '
            f'{", ".join(sorted(own))}'
        )
    for key in sorted(own.keys() & old.keys()):
        value, old_value = _plain(own[key]), _plain(old[key])
        if value != old_value:
            units = (
                'epochs' if state.get('by_epoch', True) else 'iterations' for state in (old, own)
            )
            old_unit, unit = (f' {unit}' if key in _STEPS else '' for unit in units)
            yield (
                f'{path}.{key} ({kind}): {old_value}{old_unit} is used, {value}{unit} in the config'
            )


def _plain(value: Any) -> Any:
    """Return a value that can be compared and printed."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Counter):  # The milestones.
        return sorted(value.elements())
    return list(value) if isinstance(value, tuple) else value
