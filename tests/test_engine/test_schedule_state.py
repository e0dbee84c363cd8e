import pytest
import torch

from mmcloformer.errors import CheckpointError
from tests.test_engine.resuming import resume_with_warnings
from tests.toy import train

SGD = dict(type='SGD', lr=0.1, weight_decay=0.01)
WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2)
STEPS = dict(type='MultiStepLR', milestones=[2, 3], end=4)


@pytest.fixture
def run(tmp_path):
    train(tmp_path, epochs=1, optim_wrapper=dict(optimizer=SGD), param_scheduler=[WARM_UP, STEPS])
    return tmp_path


def warnings(run, *, optimizer=None, schedule=None, epochs=4, **settings):
    settings = dict(optim_wrapper=dict(optimizer=SGD | (optimizer or {}))) | settings
    schedule = [WARM_UP, STEPS] if schedule is None else schedule
    return resume_with_warnings(
        run / 'epoch_1.pth', run, epochs=epochs, hooks=['ScheduleStateHook'],
        param_scheduler=schedule, **settings,
    )  # fmt: skip


@pytest.mark.parametrize('epochs', [1, 2, 9])
def test_the_same_schedule_is_resumed_silently(run, epochs):
    assert warnings(run, epochs=epochs)[1] == ''


@pytest.mark.parametrize(
    ('changes', 'lines'),
    [
        (
            dict(schedule=[WARM_UP, STEPS | dict(milestones=[8, 11], end=12)]),
            [
                'param_scheduler.1.end (MultiStepLR): 4 epochs is used, 12 epochs in the config',
                'param_scheduler.1.milestones (MultiStepLR): [2, 3] epochs is used, [8, 11] epochs',
            ],
        ),
        (
            dict(schedule=[WARM_UP | dict(end=500, start_factor=0.01), STEPS]),
            [
                'param_scheduler.0.end (LinearLR): 2 iterations is used, 500 iterations in the',
                'param_scheduler.0.start_factor (LinearLR): 0.1 is used, 0.01 in the config',
            ],
        ),
        (dict(schedule=[WARM_UP, STEPS | dict(gamma=0.5)]), ['gamma (MultiStepLR): 0.1 is used']),
        (
            dict(schedule=[WARM_UP, STEPS | dict(convert_to_iter_based=True)]),
            [
                'param_scheduler.1.by_epoch (MultiStepLR): True is used, False in the config',
                'milestones (MultiStepLR): [2, 3] epochs is used, [4, 6] iterations in the config',
            ],
        ),
        (
            dict(schedule=[WARM_UP, dict(type='CosineAnnealingLR', T_max=3)]),
            ['.1: the state of a schedule with begin, by_epoch, end, gamma, milestones; a'],
        ),
        (dict(schedule=[STEPS]), ['2 schedules in the checkpoint, 1 in the config']),
        (dict(optimizer=dict(lr=0.2)), ['optim_wrapper.optimizer.lr: 0.1 is used, 0.2 in']),
        (
            dict(optimizer=dict(weight_decay=0.0, momentum=0.9)),
            [
                'optim_wrapper.optimizer.momentum: 0 is used, 0.9 in the config',
                'optim_wrapper.optimizer.weight_decay: 0.01 is used, 0.0 in the config',
            ],
        ),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_named(run, changes, lines):
    text = warnings(run, epochs=1, **changes)[1]
    for line in lines:
        assert line in text
    assert '--cfg-options load_from=CHECKPOINT, without --resume' in text


def test_the_warning_is_true(run):
    """The rate after resuming is the old one."""
    changed = dict(optimizer=dict(lr=9.0), schedule=[WARM_UP, STEPS | dict(gamma=0.9)])
    runner, text = warnings(run, epochs=3, **changed)
    assert 'lr: 0.1 is used, 9.0' in text
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.1 * 0.1 * 0.1)


def test_groups_per_parameter_are_told_once(tmp_path):
    wrapper = dict(paramwise_cfg=dict(bias_decay_mult=0.0))
    settings = dict(optim_wrapper=dict(optimizer=SGD, **wrapper), param_scheduler=STEPS)
    train(tmp_path, epochs=1, **settings)
    changed = dict(optim_wrapper=dict(optimizer=SGD | dict(lr=1.0), **wrapper))
    _, text = warnings(tmp_path, epochs=1, schedule=STEPS, **changed)
    assert text.count('is used') == 1
    assert 'lr (parameter group 0): 0.1 is used, 1.0 in the config' in text


def test_other_groups_of_parameters_are_an_error(run):
    wrapper = dict(optimizer=SGD, paramwise_cfg=dict(bias_decay_mult=0.0))
    with pytest.raises(CheckpointError, match=r'1 parameter groups with 2 .* config 2 with 2'):
        warnings(run, optim_wrapper=wrapper)


def test_another_optimizer_is_told(run):
    wrapper = dict(optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.01))
    _, text = warnings(run, epochs=1, optim_wrapper=wrapper)
    assert 'optim_wrapper.optimizer.type: the state is of an optimizer with dampening' in text


def test_checkpoints_without_these_states_pass(run):
    checkpoint = torch.load(run / 'epoch_1.pth', weights_only=False)
    del checkpoint['optimizer'], checkpoint['param_schedulers']
    torch.save(checkpoint, run / 'epoch_1.pth')
    assert 'is used' not in warnings(run, optimizer=dict(lr=1.0), epochs=1)[1]
