import logging
import os
import random
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.engine.resuming import resume_from_last_whole
from mmcloformer.errors import CheckpointError
from tests.toy import toy_runner, train, validated_runner

LAST = 'epoch_3.pth'
WEIGHTS = torch.randn(1000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def work_dir(tmp_path):
    """Three checkpoints of a run and its best, named and written as the host does."""
    for time, name in enumerate(('epoch_1.pth', 'epoch_2.pth', 'best_AP_epoch_2.pth', LAST)):
        torch.save(dict(state_dict=dict(weight=WEIGHTS)), tmp_path / name)
        os.utime(tmp_path / name, (time, time))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / LAST))
    return tmp_path


def resume(work_dir, **fields):
    cfg = Config(dict(work_dir=str(work_dir), **fields))
    return cfg, resume_from_last_whole(cfg)


def test_the_named_one_is_taken_silently(work_dir):
    for name in (LAST, 'epoch_1.pth'):
        (work_dir / 'last_checkpoint').write_text(str(work_dir / name))
        cfg, note = resume(work_dir, load_from='pretrained.pth')
        assert (cfg.resume, cfg.load_from, note) == (True, str(work_dir / name), None)


def test_cut_short_or_changed_anywhere_it_is_not_taken(work_dir):
    last = work_dir / LAST
    whole = last.read_bytes()
    begin = whole.index(WEIGHTS.numpy().tobytes())
    rng = random.Random(0)
    damages = [whole[: rng.randrange(len(whole))] for _ in range(20)]
    damages += [b'', whole[:-1], bytes(len(whole)), whole[: len(whole) // 2] + bytes(len(whole))]
    for place in rng.choices(range(begin, begin + 4000), k=20):
        damages.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for damaged in damages:
        last.write_bytes(damaged)
        cfg, note = resume(work_dir)
        assert (cfg.resume, cfg.load_from) == (True, str(work_dir / 'epoch_2.pth'))
        assert f'{LAST} is missing, cut short or damaged: resuming from {cfg.load_from}' in note
        assert '\n' not in note
    # Whatever a reader of zip archives makes of damaged headers.
    for place in range(whole.rindex(b'PK\x01\x02'), len(whole)):
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert resume(work_dir)[0].resume


@pytest.mark.parametrize('written', [None, ''])
def test_the_latest_is_found_where_last_checkpoint_names_none(work_dir, written):
    """Killed after a checkpoint was saved and before its name was."""
    pointer = work_dir / 'last_checkpoint'
    pointer.unlink() if written is None else pointer.write_text(written)
    cfg, note = resume(work_dir)
    assert (cfg.resume, cfg.load_from) == (True, str(work_dir / LAST))
    assert 'no last_checkpoint' in note


def test_a_work_dir_that_was_moved_and_another_folder_for_checkpoints(work_dir, tmp_path_factory):
    moved = work_dir.rename(tmp_path_factory.mktemp('elsewhere') / 'run')
    cfg, note = resume(moved)
    assert (cfg.resume, cfg.load_from) == (True, str(moved / LAST))
    assert f'{work_dir / LAST} is missing' in note
    # As with `default_hooks.checkpoint.out_dir`.
    (work_dir / 'last_checkpoint').parent.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(moved / 'gone.pth'))
    assert resume(work_dir)[0].load_from == str(moved / LAST)


@pytest.mark.parametrize('damaged', [False, True])
def test_without_a_whole_one_training_starts_as_the_config_says(tmp_path, damaged):
    if damaged:
        (tmp_path / 'epoch_1.pth').write_bytes(b'half')
    cfg, note = resume(tmp_path, load_from='pretrained.pth', resume=True)
    assert (cfg.resume, cfg.load_from) == (False, 'pretrained.pth')
    assert 'training starts from the beginning' in note
    assert ('none of 1 checkpoints is complete' in note) == damaged


def test_what_only_the_host_can_judge_is_left_to_it(work_dir):
    """Remote files, and the folders in which DeepSpeed and FSDP save."""
    (work_dir / 'sharded').mkdir()
    for named in ('s3://bucket/epoch_3.pth', str(work_dir / 'sharded')):
        (work_dir / 'last_checkpoint').write_text(named)
        cfg, note = resume(work_dir)
        assert (cfg.load_from, note) == (named, None)


@pytest.mark.parametrize(('template', 'name'), [('ckpt_{}.pth', '2'), ('ckpt_{:03d}.pth', '002')])
def test_names_that_the_config_gives_them(work_dir, template, name):
    (work_dir / 'epoch_2.pth').rename(work_dir / f'ckpt_{name}.pth')
    for damaged in ('epoch_1.pth', LAST):
        (work_dir / damaged).write_bytes(b'PK')
    (work_dir / 'last_checkpoint').write_bytes(b'\xff\xfe')
    hooks = dict(checkpoint=dict(filename_tmpl=template))
    assert resume(work_dir, default_hooks=hooks)[0].load_from == str(work_dir / f'ckpt_{name}.pth')


def test_published_weights_are_not_resumed(work_dir):
    (work_dir / LAST).rename(work_dir / 'epoch_3-8c1636d0.pth')
    assert resume(work_dir)[0].load_from == str(work_dir / 'epoch_2.pth')


def test_the_configs_folder_for_checkpoints(work_dir, tmp_path_factory):
    """Killed while it wrote the name of the last one."""
    out_dir = tmp_path_factory.mktemp('checkpoints')
    (out_dir / work_dir.name).mkdir()
    for file in work_dir.glob('*.pth'):
        file.rename(out_dir / work_dir.name / file.name)
    (work_dir / 'last_checkpoint').write_text('')
    hooks = dict(checkpoint=dict(out_dir=str(out_dir)))
    found = resume(work_dir, default_hooks=hooks)[0].load_from
    assert found == str(out_dir / work_dir.name / LAST)


@pytest.mark.parametrize(
    'hooks',
    [None, {}, dict(checkpoint=None), dict(logger=None), dict(checkpoint=dict(filename_tmpl=None))],
)
def test_configs_that_drop_hooks(work_dir, hooks):
    (work_dir / LAST).write_bytes(b'half')
    assert resume(work_dir, default_hooks=hooks)[0].load_from == str(work_dir / 'epoch_2.pth')


HOOKS = ('WrapperKeysHook', 'WholeCheckpointHook', 'ResumeHook')
SCHEDULE = dict(type='MultiStepLR', milestones=[2])


def resume_run(checkpoint, work_dir, /, *, epochs=3, hooks=HOOKS, **settings):
    """Resume with hooks of these types; returns the Runner and the warnings of this package."""
    runner = toy_runner(
        work_dir,
        epochs=epochs,
        resume=True,
        load_from=str(checkpoint),
        custom_hooks=[dict(type=hook) for hook in hooks],
        **dict(param_scheduler=SCHEDULE) | settings,
    )
    warnings = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append((Path(record.pathname).parent.name, record))
    runner.logger.addHandler(handler)
    runner.train()
    text = '\n'.join(record.getMessage() for part, record in warnings if part == 'engine')
    return runner, text


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
    runner, warnings = resume_run(run / 'epoch_1.pth', run)
    assert (runner.epoch, warnings) == (3, '')
    # The reference: the same without these hooks.
    plain, _ = resume_run(run / 'epoch_1.pth', run, hooks=[])
    assert all(map(torch.equal, runner.model.parameters(), plain.model.parameters()))
    # What another hook loads later is not checked.
    runner.load_checkpoint(str(without(run, 'optimizer')))


def test_a_schedule_with_a_function_keeps_its_own(tmp_path):
    schedule = dict(type='OneCycleLR', eta_max=0.1, total_steps=6, by_epoch=False)
    train(tmp_path, epochs=3, param_scheduler=schedule)
    runner, warnings = resume_run(tmp_path / 'epoch_1.pth', tmp_path, param_scheduler=schedule)
    assert (runner.epoch, warnings) == (3, '')
    whole = read_checkpoint(tmp_path / LAST)['state_dict']
    assert all(torch.equal(whole[key], value) for key, value in runner.model.state_dict().items())


def test_what_the_host_saves_as_the_best_is_refused(tmp_path):
    runner = toy_runner(tmp_path, epochs=2, checkpoint=dict(save_best='acc', rule='greater'))
    hook = next(hook for hook in runner.hooks if hasattr(hook, 'save_best'))
    runner.train()
    hook.after_val_epoch(runner, dict(acc=0.5))
    (best,) = tmp_path.glob('best_*.pth')
    with pytest.raises(CheckpointError) as error:
        resume_run(best, tmp_path)
    for words in (f'{best} holds weights', 'no optimizer, param_schedulers', f'load_from={best}'):
        assert words in str(error.value)


@pytest.mark.parametrize(
    'content',
    [
        lambda checkpoint: checkpoint['state_dict'],
        lambda checkpoint: dict(model=checkpoint['state_dict']),
        lambda checkpoint: {key: checkpoint[key] for key in ('meta', 'state_dict')},
        lambda checkpoint: {k: v for k, v in checkpoint.items() if k != 'message_hub'},
        lambda checkpoint: {**checkpoint, 'meta': dict(arch='xxs')},
        lambda checkpoint: {'backbone.weight': torch.zeros(1)},
    ],
)
def test_weights_in_every_form_are_refused(run, content):
    torch.save(content(torch.load(run / 'epoch_1.pth', weights_only=False)), run / 'weights.pth')
    with pytest.raises(CheckpointError, match='holds weights, but not all that resuming needs'):
        resume_run(run / 'weights.pth', run)


def test_a_run_without_a_schedule_is_resumed(tmp_path):
    train(tmp_path, epochs=1)
    assert resume_run(tmp_path / 'epoch_1.pth', tmp_path, param_scheduler=None)[1] == ''
    _, warnings = resume_run(tmp_path / 'epoch_1.pth', tmp_path)
    assert 'without param_schedulers' in warnings


def test_what_the_run_does_not_save_may_be_missing(tmp_path):
    settings = dict(param_scheduler=SCHEDULE, checkpoint=dict(save_optimizer=False))
    train(tmp_path, epochs=3, **settings)
    checkpoint = tmp_path / 'epoch_2.pth'
    assert 'optimizer' not in read_checkpoint(checkpoint)
    runner, warnings = resume_run(checkpoint, tmp_path, **settings)
    assert runner.epoch == 3
    assert 'without optimizer, which start anew' in warnings
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.1)  # The warning is true.
    best = without(tmp_path, 'param_schedulers', source='epoch_2.pth')
    with pytest.raises(CheckpointError, match='no optimizer, param_schedulers'):
        resume_run(best, tmp_path, **settings)
    # The config in the checkpoint tells the setting with which the run was started.
    started = torch.load(checkpoint, weights_only=False)
    started['meta']['cfg'] = 'default_hooks = dict(checkpoint=dict(save_optimizer=False))'
    torch.save(started, tmp_path / 'started.pth')
    _, warnings = resume_run(tmp_path / 'started.pth', tmp_path, **settings | dict(checkpoint={}))
    assert 'without optimizer, which start anew' in warnings
    settings['checkpoint'] |= dict(save_param_scheduler=False)
    _, warnings = resume_run(best, tmp_path, **settings)
    assert 'without optimizer and param_schedulers' in warnings


@pytest.mark.parametrize('epochs', [1, 2])
def test_a_finished_run_says_so(run, epochs):
    runner, warnings = resume_run(run / 'epoch_2.pth', run, epochs=epochs)
    assert runner.epoch == 2
    assert (
        f'is finished: {run}/epoch_2.pth is of epoch 2, and train_cfg.max_epochs is {epochs}.'
        in warnings
    )
    assert 'set train_cfg.max_epochs above 2' in warnings
    assert f'load_from={run}/epoch_2.pth' in warnings


def test_a_finished_run_by_iterations(tmp_path):
    settings = dict(
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2), checkpoint=dict(by_epoch=False)
    )
    train(tmp_path, **settings)
    _, warnings = resume_run(tmp_path / 'iter_2.pth', tmp_path, param_scheduler=None, **settings)
    assert 'is of iter 2, and train_cfg.max_iters is 2' in warnings
    settings['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=3)
    assert resume_run(tmp_path / 'iter_2.pth', tmp_path, param_scheduler=None, **settings)[1] == ''


def test_another_batch_size_is_told(run):
    schedule = dict(type='MultiStepLR', milestones=[2], convert_to_iter_based=True)
    runner, warnings = resume_run(
        run / 'epoch_2.pth', run, epochs=4, batch_size=4, param_scheduler=schedule
    )
    assert runner.iter == 6
    assert 'is of iteration 4, but 2 epochs of this run have 2: the batch size' in warnings


SGD = dict(type='SGD', lr=0.1, weight_decay=0.01)


@pytest.mark.parametrize(
    'changes',
    [
        dict(optim_wrapper=dict(optimizer=SGD | dict(lr=9.0))),
        dict(optim_wrapper=dict(optimizer=SGD, clip_grad=dict(max_norm=1))),
        dict(param_scheduler=[dict(type='MultiStepLR', milestones=[1])]),
        dict(param_scheduler=dict(type='CosineAnnealingLR', T_max=3)),
        {},
    ],
)
def test_a_changed_rate_or_schedule_has_no_effect_and_is_told(tmp_path, changes):
    schedule = dict(type='MultiStepLR', milestones=[2], end=3)
    settings = dict(optim_wrapper=dict(optimizer=SGD), param_scheduler=schedule)

    def run(epochs, **fields):
        return dict(epochs=epochs, cfg=dict(fields), **fields)

    train(tmp_path, **run(1, **settings))
    runner, warnings = resume_run(
        tmp_path / 'epoch_1.pth', tmp_path, **run(3, **settings | changes)
    )
    for field in settings:
        assert (f'{field} of the config differ' in warnings) == (field in changes)
    if 'optim_wrapper' in changes:  # The warning is true.
        assert 'others, such as of clip_grad, take effect' in warnings
        assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.1 * 0.1)
        clip_grad = changes['optim_wrapper'].get('clip_grad')
        assert bool(runner.optim_wrapper.clip_grad_kwargs) == bool(clip_grad)


def test_other_groups_of_parameters_are_an_error(run):
    wrapper = dict(optimizer=SGD, paramwise_cfg=dict(bias_lr_mult=2.0))
    with pytest.raises(CheckpointError, match=r'has 1 groups with 2 .* config 2 with 2'):
        resume_run(run / 'epoch_1.pth', run, optim_wrapper=wrapper)


def scores_of(*values):
    return [dict(acc=value) for value in values]


EARLY = dict(type='EarlyStoppingHook', monitor='acc', rule='greater', patience=3, min_delta=0.0)
PLATEAU = dict(
    type='ReduceOnPlateauLR', monitor='acc', rule='greater', factor=0.5, patience=1, end=9
)


def validate(work_dir, scores, *hooks, **settings):
    checkpoint = dict(type='AtomicCheckpointHook') | settings.pop('checkpoint', {})
    runner = validated_runner(
        work_dir,
        scores_of(*scores),
        custom_hooks=[*hooks, dict(type='MissedValidationHook')],
        checkpoint=checkpoint,
        **settings,
    )
    runner.train()
    return runner


@pytest.mark.parametrize(
    ('stop', 'save_best', 'by_epoch'),
    [(1, None, True), (2, 'acc', True), (2, 'acc', False), (3, None, False), (4, 'acc', True)],
)
def test_early_stopping_stops_where_an_uninterrupted_run_does(tmp_path, stop, save_best, by_epoch):
    scores = [0.1, 0.5, 0.4, 0.3, 0.2, 0.6, 0.7]  # The third after the best is the fifth.
    unit = 'epoch' if by_epoch else 'iter'
    checkpoint = dict(save_best=save_best, rule='greater', by_epoch=by_epoch)

    def run(work_dir, end, scores, **settings):
        settings.update(
            train_cfg={'by_epoch': by_epoch, f'max_{unit}s': end, 'val_interval': 1},
            sampler='DefaultSampler' if by_epoch else 'InfiniteSampler',
        )
        return validate(work_dir, scores, EARLY, checkpoint=checkpoint, **settings)

    alone = run(tmp_path / 'alone', 7, scores)
    assert getattr(alone, unit) == 5
    run(tmp_path / 'work', stop, scores)
    # A checkpoint that is saved again with the best metric knows of its validation.
    known = save_best and scores[stop - 1] == max(scores[:stop])
    resumed = run(tmp_path / 'work', 7, scores[stop if known else stop - 1 :], resume=True)
    assert getattr(resumed, unit) == 5
    best = {file.name for file in (tmp_path / 'alone').glob('best*')}
    assert {file.name for file in (tmp_path / 'work').glob('best*')} == best


def test_a_run_that_has_stopped_early_goes_no_further(tmp_path):
    validate(tmp_path, [0.5, 0.4, 0.3, 0.2], EARLY, epochs=9)
    runner = validate(tmp_path, [0.2], EARLY, epochs=9, resume=True)
    assert runner.epoch == 4


def test_schedules_that_watch_a_metric(tmp_path):
    scores = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    settings = dict(param_scheduler=PLATEAU, optim_wrapper=dict(optimizer=SGD))
    alone = validate(tmp_path / 'alone', scores, epochs=6, **settings)
    validate(tmp_path / 'work', scores, epochs=3, **settings)
    resumed = validate(tmp_path / 'work', scores[2:], epochs=6, resume=True, **settings)
    rates = [runner.optim_wrapper.param_groups[0]['lr'] for runner in (alone, resumed)]
    assert rates[0] == rates[1] < 0.1


@pytest.mark.parametrize(
    'settings',
    [
        {},  # Nothing depends on the validation.
        dict(checkpoint=dict(save_best='acc'), train_cfg=dict(max_epochs=5, val_interval=2)),
        dict(checkpoint=dict(save_best='acc'), train_cfg=dict(max_epochs=5, val_begin=4)),
    ],
)
def test_a_validation_that_is_not_due_is_not_repeated(tmp_path, settings):
    train_cfg = dict(dict(by_epoch=True, val_interval=1), **settings.get('train_cfg', {}))
    settings = dict(settings, train_cfg=dict(train_cfg, max_epochs=3))
    validate(tmp_path, [0.1] * 3, **settings)
    settings['train_cfg']['max_epochs'] = 4
    runner = validate(tmp_path, [0.2], resume=True, **settings)
    assert runner.epoch == 4


class OwnLoop(BaseLoop):
    """A loop of a project, which validates as it likes."""

    iter = max_iters = epoch = max_epochs = 1

    def run(self):
        self.runner.call_hook('before_train')
        self.is_run = True


def test_a_loop_of_another_project_validates_by_itself(tmp_path):
    LOOPS.register_module(module=OwnLoop, force=True)
    best = dict(checkpoint=dict(save_best='acc'))
    validate(tmp_path, [0.5, 0.1], epochs=2, **best)
    runner = validate(tmp_path, [], resume=True, train_cfg=dict(type='OwnLoop'), **best)
    assert runner.train_loop.is_run
