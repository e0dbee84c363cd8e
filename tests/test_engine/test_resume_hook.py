import os
import re

import pytest
import torch

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.errors import CheckpointError
from tests.test_engine.resuming import resume_with_warnings
from tests.toy import toy_runner, train

HOOKS = ('WrapperKeysHook', 'WholeCheckpointHook', 'ResumeHook')
SCHEDULE = dict(type='MultiStepLR', milestones=[2])


def resume(checkpoint, work_dir, /, *, epochs=3, hooks=HOOKS, **settings):
    settings = dict(param_scheduler=SCHEDULE) | settings
    return resume_with_warnings(checkpoint, work_dir, epochs=epochs, hooks=hooks, **settings)


@pytest.fixture
def run(tmp_path):
    """The folder of two epochs."""
    train(tmp_path, epochs=2, param_scheduler=SCHEDULE)
    return tmp_path


def without(run, *keys, name='best_acc_epoch_1.pth', source='epoch_1.pth'):
    """Write a checkpoint without some of its parts."""
    checkpoint = torch.load(run / source, weights_only=False)
    for key in keys:
        del checkpoint[key]
    torch.save(checkpoint, run / name)
    return run / name


def test_a_checkpoint_of_the_run_is_resumed_silently(run):
    runner, warnings = resume(run / 'epoch_1.pth', run)
    assert (runner.epoch, warnings) == (3, '')
    # The reference: the same without these hooks.
    plain, _ = resume(run / 'epoch_1.pth', run, hooks=[])
    assert all(map(torch.equal, runner.model.parameters(), plain.model.parameters()))


def test_what_the_host_saves_as_the_best_is_refused(tmp_path):
    runner = toy_runner(tmp_path, epochs=2, checkpoint=dict(save_best='acc', rule='greater'))
    hook = next(hook for hook in runner.hooks if hasattr(hook, 'save_best'))
    runner.train()
    hook.after_val_epoch(runner, dict(acc=0.5))
    (best,) = tmp_path.glob('best_*.pth')
    with pytest.raises(CheckpointError) as error:
        resume(best, tmp_path)
    message = str(error.value)
    assert f'{best} holds weights' in message
    assert 'no optimizer, param_schedulers' in message
    assert f'Resume from {tmp_path}/{best.name.removeprefix("best_acc_")} in the same' in message
    assert f'--cfg-options load_from={best}, without --resume' in message


def test_the_checkpoint_to_resume_from_is_named(run):
    best = without(run, 'optimizer', 'param_schedulers')
    with pytest.raises(CheckpointError, match=f'Resume from {run}/epoch_1.pth'):
        resume(best, run)
    os.utime(run / 'epoch_1.pth', (1, 1))
    other = best.rename(run / 'published-1234.pth')
    with pytest.raises(CheckpointError, match=f'Resume from {run}/epoch_2.pth'):
        resume(other, run)
    alone = run / 'alone'
    alone.mkdir()
    with pytest.raises(CheckpointError, match=r'Resume from an epoch_N\.pth or iter_N\.pth of'):
        resume(other.rename(alone / 'epoch_1.pth'), run)


@pytest.mark.parametrize(
    'content',
    [
        lambda checkpoint: checkpoint['state_dict'],
        lambda checkpoint: dict(state_dict=checkpoint['state_dict']),
        lambda checkpoint: dict(model=checkpoint['state_dict']),
        lambda checkpoint: {key: checkpoint[key] for key in ('meta', 'state_dict')},
        lambda checkpoint: {**checkpoint, 'meta': {}},
        lambda checkpoint: {k: v for k, v in checkpoint.items() if k != 'message_hub'},
        lambda checkpoint: {**checkpoint, 'meta': dict(arch='xxs')},
        lambda checkpoint: {'backbone.weight': torch.zeros(1)},
    ],
)
def test_weights_in_every_form_are_refused(run, content):
    torch.save(content(torch.load(run / 'epoch_1.pth', weights_only=False)), run / 'weights.pth')
    with pytest.raises(CheckpointError, match='holds weights, but not all that resuming needs'):
        resume(run / 'weights.pth', run)


def test_a_run_without_a_schedule_is_resumed(tmp_path):
    train(tmp_path, epochs=1)
    assert resume(tmp_path / 'epoch_1.pth', tmp_path, param_scheduler=None)[1] == ''
    _, warnings = resume(tmp_path / 'epoch_1.pth', tmp_path)
    assert 'without param_schedulers: the schedule of the config starts at its' in warnings


def test_what_the_run_does_not_save_may_be_missing(tmp_path):
    settings = dict(param_scheduler=SCHEDULE, checkpoint=dict(save_optimizer=False))
    train(tmp_path, epochs=3, **settings)
    checkpoint = tmp_path / 'epoch_2.pth'
    assert 'optimizer' not in read_checkpoint(checkpoint)
    runner, warnings = resume(checkpoint, tmp_path, **settings)
    assert runner.epoch == 3
    assert (
        'without optimizer: the optimizer starts anew, with a learning rate of 0.1; it was 0.01'
        in warnings
    )
    assert 'save_optimizer=True' in warnings
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.1)  # The warning is true.
    best = without(tmp_path, 'param_schedulers', source='epoch_2.pth')
    with pytest.raises(CheckpointError, match='no optimizer, param_schedulers'):
        resume(best, tmp_path, **settings)
    settings['checkpoint'] |= dict(save_param_scheduler=False)
    _, warnings = resume(best, tmp_path, **settings)
    assert 'starts anew, and the schedule at its beginning' in warnings


def test_a_checkpoint_that_a_hook_loads_later_is_not_checked(run):
    runner, _ = resume(run / 'epoch_2.pth', run)
    runner.load_checkpoint(str(without(run, 'optimizer')))


@pytest.mark.parametrize('epochs', [1, 2])
def test_a_finished_run_says_so(run, epochs):
    runner, warnings = resume(run / 'epoch_2.pth', run, epochs=epochs)
    assert runner.epoch == 2
    assert (
        f'is finished: {run}/epoch_2.pth is of epoch 2, and train_cfg.max_epochs is {epochs}.'
        in warnings
    )
    assert 'set train_cfg.max_epochs above 2' in warnings
    assert re.search('load_from=.*epoch_2.pth, with another --work-dir', warnings)


def test_a_finished_run_by_iterations(tmp_path):
    settings = dict(
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2), checkpoint=dict(by_epoch=False)
    )
    train(tmp_path, **settings)
    _, warnings = resume(tmp_path / 'iter_2.pth', tmp_path, param_scheduler=None, **settings)
    assert 'is of iter 2, and train_cfg.max_iters is 2' in warnings
    settings['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=3)
    assert resume(tmp_path / 'iter_2.pth', tmp_path, param_scheduler=None, **settings)[1] == ''
