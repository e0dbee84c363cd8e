"""Resuming a run: choosing the checkpoint, checking it, and what the host does not restore."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from ..errors import CheckpointError
from .hooks import scheduler_groups

# Fields of a config whose state a resumed run takes from the checkpoint.
_RESTORED = ('optim_wrapper', 'param_scheduler')
# Parts of a checkpoint besides the weights, and the argument of CheckpointHook that leaves it out.
_OPTIONAL = {'optimizer': 'save_optimizer', 'param_schedulers': 'save_param_scheduler'}


def resume_from_last_whole(cfg: Config) -> str | None:
    """Set the config to resume from the last complete checkpoint of the work dir.

    This is the one that the file `last_checkpoint` names, as for the host, or else the latest
    complete one. If there is none, training starts as the config says, with its `load_from`.

    Args:
        cfg: Config of a training, changed in place.

    Returns:
        Message for the user if the checkpoint is not the one that `last_checkpoint` names.
    """
    work_dir = Path(cfg.work_dir)
    pointer = work_dir / 'last_checkpoint'
    # The file is empty if the process was killed while writing it.
    named = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    if named and _is_usable(named):
        cfg.resume, cfg.load_from = True, named
        return None

    # mmengine drops a hook that is None.
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    templates = ('epoch_{}.pth', 'iter_{}.pth', hook.get('filename_tmpl') or 'epoch_{}.pth')
    pattern = re.compile('|'.join(map(_number_pattern, templates)))
    folders = {work_dir, Path(named).parent if named else work_dir}
    if hook.get('out_dir'):
        folders.add(Path(hook['out_dir'], work_dir.name))
    files = {
        file
        for folder in folders
        if folder.is_dir()
        for file in folder.iterdir()
        if pattern.fullmatch(file.name)
    }
    latest_first = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    whole = next((file for file in latest_first if _is_usable(file)), None)

    problem = f'no last_checkpoint in {work_dir}'
    if named:
        problem = f'checkpoint {named} is missing, cut short or damaged'
    if whole is None:
        cfg.resume = False
        damaged = f', none of {len(files)} checkpoints is complete' if files else ''
        return f'{problem}{damaged}: training starts from the beginning'
    cfg.resume, cfg.load_from = True, str(whole)
    return f'{problem}: resuming from {whole}, the latest complete one'


def _number_pattern(template: str) -> str:
    """Return a regular expression for the names that a `filename_tmpl` gives."""
    return r'\d+'.join(map(re.escape, re.split(r'{.*?}', template)))


def _is_usable(checkpoint: str | Path) -> bool:
    """Return whether a checkpoint is complete and matches its checksums.

    Remote files, and the folders that some strategies save, are left to the host.
    """
    if '://' in str(checkpoint) or Path(checkpoint).is_dir():
        return True
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    # Damaged headers raise the latter four.
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, ArithmeticError):
        return False


@HOOKS.register_module()
class ResumeHook(Hook):
    """Check the checkpoint that a run resumes from, and tell if the run is finished.

    mmengine saves `best_*.pth` without the state of optimizer and schedule. It resumes from such
    a file with the number of the epoch, but with a new optimizer and the schedule at its start.
    """

    # Before the hooks that compare the weights with the model.
    priority = 'HIGHEST'
    _is_checked = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        """Check that the checkpoint has what resuming needs, and fits the optimizer.

        Raises:
            CheckpointError: If it has not, although the run saves it, or the optimizer has other
                groups of parameters.
        """
        if self._is_checked:  # Another hook loads a checkpoint later.
            return
        self._is_checked = True
        source = _source(runner)
        parts = checkpoint if isinstance(checkpoint, Mapping) else {}
        meta = parts['meta'] if isinstance(parts.get('meta'), Mapping) else {}
        lacks = [name for name in ('epoch', 'iter') if name not in meta]
        lacks += [name for name in ('message_hub', 'optimizer') if name not in parts]
        if runner.param_schedulers and 'param_schedulers' not in parts:
            lacks.append('param_schedulers')
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        unsaved = {
            part
            for part, argument in _OPTIONAL.items()
            if not all(getattr(hook, argument) for hook in hooks)
            or f'{argument}=False' in str(meta.get('cfg', ''))  # when the run was started
        }
        # The schedule may have been added to the config of a run without one.
        if lacks != ['param_schedulers'] and not unsaved.issuperset(lacks):
            raise CheckpointError(
                f'{source} holds weights, but not all that resuming needs (no {", ".join(lacks)}), '
                f'as is usual of best_*.pth and of published or converted weights. Resume from an '
                f'epoch_N.pth or iter_N.pth of the run. {_new_run(source)}'
            )
        if lacks:
            runner.logger.warning(
                f'{source} was saved without {" and ".join(lacks)}, which start anew, as the '
                f'config says. default_hooks.checkpoint.save_optimizer and save_param_scheduler '
                f'save them.'
            )
        _check_groups(runner, parts, source)
        changed = [name for name in _RESTORED if not _is_in(meta.get('cfg'), runner.cfg, name)]
        if changed:
            runner.logger.warning(
                f'{" and ".join(changed)} of the config differ from those of {source}. Resuming '
                f'restores the settings of the optimizer, such as lr, and the schedule, so that '
                f'changes of these have no effect; others, such as of clip_grad, take effect. '
                f'{_new_run(source)}'
            )

    def before_train(self, runner: Runner) -> None:
        """Tell if nothing is left to train, or if the epochs have another length."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            iterations = loop.epoch * len(loop.dataloader)
            if loop.iter != iterations:
                runner.logger.warning(
                    f'{_source(runner)} is of iteration {loop.iter}, but {loop.epoch} epochs of '
                    f'this run have {iterations}: the batch size, the number of processes or the '
                    f'data differ, or it was saved within an epoch, which starts anew. A learning '
                    f'rate that changes with the iteration thus ends at another value.'
                )
        unit = 'epoch' if isinstance(loop, EpochBasedTrainLoop) else 'iter'
        done, end = getattr(loop, unit), getattr(loop, f'max_{unit}s')
        if done >= end:
            source = _source(runner)
            runner.logger.warning(
                f'this training is finished: {source} is of {unit} {done}, and '
                f'train_cfg.max_{unit}s is {end}. Nothing is left to do. To train longer, set '
                f'train_cfg.max_{unit}s above {done}; the learning rate then follows the schedule '
                f'stored in the checkpoint. {_new_run(source)}'
            )


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Let a resumed run make up for a validation that came after its checkpoint.

    The host saves the checkpoint of an epoch before it validates the epoch, and a resumed run
    continues with the next epoch. The best checkpoint, EarlyStoppingHook and schedulers that watch
    a metric would miss this validation. EarlyStoppingHook also loses the earlier ones; their
    metrics are read from the log in the checkpoint.
    """

    # After the hooks that a validation calls are set up.
    priority = 'LOWEST'
    is_validated = False

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note that the weights are about to change."""
        self.is_validated = False

    def before_val_epoch(self, runner: Runner) -> None:
        """Note that the weights are validated."""
        self.is_validated = True

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save whether the weights are validated: the host saves again after a best metric."""
        checkpoint['meta']['is_validated'] = self.is_validated

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore it."""
        if runner._resume:
            self.is_validated = checkpoint['meta'].get('is_validated', False)

    def before_train(self, runner: Runner) -> None:
        """Repeat what EarlyStoppingHook has seen, and validate if something depends on it."""
        loop = runner.train_loop
        if not runner._resume or loop.iter == 0 or runner.val_loop is None:
            return
        stopping = [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]
        for hook in stopping:
            if scores := runner.message_hub.log_scalars.get(f'val/{hook.monitor}'):
                for score in scores.data[0]:
                    hook.after_val_epoch(runner, {hook.monitor: score})
        needs_validation = (
            stopping
            or any(getattr(hook, 'save_best', None) for hook in runner.hooks)
            or any(
                getattr(each, 'need_val_args', False)
                for group in scheduler_groups(runner)
                for each in group
            )
        )
        if needs_validation and not self.is_validated and _is_validation_due(loop):
            runner.logger.info('the checkpoint was saved before its validation, which comes first')
            runner.val_loop.run()


def _source(runner: Runner) -> str:
    return str(getattr(runner, '_load_from', None) or 'the checkpoint')


def _new_run(source: str) -> str:
    return (
        f'To start a new run from its weights, use --cfg-options load_from={source} and another '
        f'--work-dir, without --resume.'
    )


def _check_groups(runner: Runner, checkpoint: Mapping[str, Any], source: str) -> None:
    """Raise an error that says what to do if the groups of parameters differ."""
    groups = checkpoint.get('optimizer', {}).get('param_groups')
    # Strategies of a FlexibleRunner regroup the parameters; several optimizers have no groups.
    if groups is None or not isinstance(runner, Runner):
        return
    own = [len(group['params']) for group in runner.optim_wrapper.optimizer.param_groups]
    old = [len(group['params']) for group in groups]
    if own != old:
        raise CheckpointError(
            f'the optimizer of {source} has {len(old)} groups with {sum(old)} parameters, that of '
            f'this config {len(own)} with {sum(own)}. Resume with the optim_wrapper (constructor, '
            f'paramwise_cfg) and frozen layers that the run was started with. {_new_run(source)}'
        )


def _is_in(text: Any, cfg: Config, field: str) -> bool:
    """Return whether the config that a checkpoint holds as text has the same field."""
    own = Config({field: cfg[field]}).pretty_text.strip() if field in cfg else ''
    return own in text if isinstance(text, str) else True


def _is_validation_due(loop: Any) -> bool:
    """Return whether a loop validates after the epoch or iteration that it resumes from."""
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):  # It validates as it likes.
        return False
    loop._decide_current_val_interval()
    done, end = loop.iter, loop.max_iters
    if isinstance(loop, EpochBasedTrainLoop):
        if loop.iter != loop.epoch * len(loop.dataloader):  # Saved within an epoch.
            return False
        done, end = loop.epoch, loop.max_epochs
    return bool(done >= loop.val_begin and (done % loop.val_interval == 0 or done == end))
