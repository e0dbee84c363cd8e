"""Refusing to resume from weights alone, and telling that a run is finished."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from ..errors import CheckpointError

# Parts of a checkpoint besides the weights, and the argument of CheckpointHook that leaves it out.
_OPTIONAL = {'optimizer': 'save_optimizer', 'param_schedulers': 'save_param_scheduler'}


@HOOKS.register_module()
class ResumeHook(Hook):
    """Refuse to resume from a checkpoint of weights alone, and tell that a run is finished.

    mmengine saves `best_*.pth` without the state of optimizer and schedule. It resumes from such
    a file with the number of the epoch, but with a new optimizer and the schedule at its start.
    """

    # Before the hooks that compare the weights with the model.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._is_checked = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        """Check the content of the checkpoint that the Runner resumes from.

        Raises:
            CheckpointError: If it lacks what the host needs, or the state of the optimizer or the
                schedule although the run saves it; says what to do instead.
        """
        if self._is_checked:  # Another hook loads a checkpoint later.
            return
        self._is_checked = True
        source = _source(runner)
        parts = checkpoint if isinstance(checkpoint, Mapping) else {}
        meta = parts.get('meta')
        progress = meta if isinstance(meta, Mapping) else {}
        lacks = [name for name in ('epoch', 'iter') if name not in progress]
        lacks += [name for name in ('message_hub', 'optimizer') if name not in parts]
        if runner.param_schedulers and 'param_schedulers' not in parts:
            lacks.append('param_schedulers')
        unsaved = [name for name in lacks if not _is_saved(runner, progress, name)]
        # The schedule may have been added to the config of a run without one.
        is_new = lacks == ['param_schedulers'] and 'optimizer' in parts
        if lacks == unsaved or is_new:
            if lacks:
                runner.logger.warning(_describe_loss(runner, source, parts, lacks))
            return
        raise CheckpointError(
            f'{source} holds weights, but not all that resuming needs (no {", ".join(lacks)}), as '
            f'is usual of best_*.pth and of published or converted weights. {_advice(source)}'
        )

    def before_train(self, runner: Runner) -> None:
        """Tell if nothing is left to train."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            unit, done, end = 'epoch', loop.epoch, loop.max_epochs
        elif isinstance(loop, IterBasedTrainLoop):
            unit, done, end = 'iter', loop.iter, loop.max_iters
        else:
            return
        if done >= end:
            source = _source(runner)
            runner.logger.warning(
                f'this training is finished: {source} is of {unit} {done}, and '
                f'train_cfg.max_{unit}s is {end}. Nothing is left to do. To train longer, set '
                f'train_cfg.max_{unit}s above {done}; the learning rate then follows the schedule '
                f'stored in the checkpoint. To train with a new schedule, start a new run from '
                f'these weights: --cfg-options load_from={source}, with another --work-dir and '
                f'without --resume.'
            )


def _source(runner: Runner) -> str:
    return str(getattr(runner, '_load_from', None) or 'the checkpoint')


def _is_saved(runner: Runner, meta: Mapping[str, Any], part: str) -> bool:
    """Return whether the run saves a part of a checkpoint, by its config now and then."""
    if part not in _OPTIONAL:
        return True
    argument = _OPTIONAL[part]
    hooks = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    now = all(getattr(hook, argument, True) for hook in hooks)
    return now and f'{argument}=False' not in str(meta.get('cfg', ''))


def _describe_loss(runner: Runner, source: str, parts: Mapping[str, Any], lacks: list[str]) -> str:
    message = f'{source} was saved without {" and ".join(lacks)}: '
    if 'optimizer' not in lacks:
        return message + 'the schedule of the config starts at its beginning.'
    message += 'the optimizer starts anew'
    old = _last_rate(parts.get('param_schedulers'))
    if old is not None:
        rate = runner.optim_wrapper.param_groups[0]['lr']
        message += f', with a learning rate of {rate:.4g}; it was {old:.4g} when this was saved'
    elif 'param_schedulers' in lacks:
        message += ', and the schedule at its beginning'
    return f'{message}. default_hooks.checkpoint.save_optimizer=True saves what this needs.'


def _last_rate(states: Any) -> float | None:
    """Return the learning rate of the first parameter group at the time of saving."""
    rates = [
        state['_last_value'][0]
        for state in (states if isinstance(states, list) else [])
        if state.get('param_name') == 'lr' and state.get('_last_value')
    ]
    return float(rates[-1]) if rates else None


def _advice(source: str) -> str:
    new_run = (
        f'To start a new run from the weights, use --cfg-options load_from={source}, without '
        f'--resume.'
    )
    checkpoint = _find_checkpoint(source)
    if checkpoint is not None:
        return f'Resume from {checkpoint} in the same folder. {new_run}'
    return f'Resume from an epoch_N.pth or iter_N.pth of the run, if there is one. {new_run}'


def _find_checkpoint(source: str) -> Path | None:
    """Return the checkpoint of the same step in the folder of a file, or the latest there."""
    folder = Path(source).parent
    if '://' in source or not folder.is_dir():
        return None
    step = re.search(r'(?:epoch|iter)_\d+\.pth$', Path(source).name)
    if step and step[0] != Path(source).name and (folder / step[0]).is_file():
        return folder / step[0]
    files = [*folder.glob('epoch_*.pth'), *folder.glob('iter_*.pth')]
    files = [file for file in files if file != Path(source)]
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
