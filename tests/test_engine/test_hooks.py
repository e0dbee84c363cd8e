import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from mmengine.model import MMDistributedDataParallel

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.engine.hooks import OneWriterLoggerHook, WholeCheckpointHook
from mmcloformer.errors import CheckpointError, DivergenceError
from tests.toy import Toy, toy_runner, train


def compare(model, state_dict):
    runner = SimpleNamespace(model=model)
    WholeCheckpointHook().after_load_checkpoint(runner, dict(state_dict=state_dict))


def test_its_own_weights_pass_also_from_a_wrapped_model():
    model = torch.nn.Linear(2, 3)
    compare(model, model.state_dict())
    compare(model, {f'module.{key}': value for key, value in model.state_dict().items()})


def test_a_wrapped_model_is_looked_into():
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    torch.nn.Module.__init__(wrapper)
    wrapper.module = torch.nn.Linear(2, 3)
    compare(wrapper, wrapper.module.state_dict())


@pytest.mark.parametrize(
    ('state_dict', 'words'),
    [
        (dict(weight=torch.zeros(3, 2)), ['1 of 2', 'bias: model (3,), checkpoint has none']),
        (
            dict(weight=torch.zeros(3, 2), bias=torch.zeros(4)),
            ['bias: model (3,), checkpoint (4,)'],
        ),
        (
            dict(weight=torch.zeros(3, 2), bias=torch.zeros(3), more=torch.zeros(1)),
            ['more: model has none, checkpoint (1,)'],
        ),
    ],
)
def test_any_difference_is_named(state_dict, words):
    with pytest.raises(CheckpointError) as error:
        compare(torch.nn.Linear(2, 3), state_dict)
    for word in words:
        assert word in str(error.value)


class Poisoned(Toy):
    """Its loss is finite and its gradient not."""

    def forward(self, inputs, target, mode='tensor'):
        return dict(loss=(self.layer(inputs) * 0).sqrt().sum())


def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(DivergenceError) as error:
        train(tmp_path, 'FiniteLossHook', lr=1e4, epochs=1000)
    message = str(error.value)
    last = (tmp_path / 'last_checkpoint').read_text()
    for words in ('loss_fit inf', f'Last checkpoint before it: {last}', 'learning rate', 'clip'):
        assert words in message
    iteration = int(re.search(r'loss of iteration (\d+)', message)[1])
    checkpoints = list(tmp_path.glob('*.pth'))
    assert len(checkpoints) == (iteration - 1) // 2 > 0
    for path in checkpoints:
        weights = read_checkpoint(path)['state_dict'].values()
        assert all(weight.isfinite().all() for weight in weights)


def test_weights_that_a_finite_loss_spoilt_are_not_saved(tmp_path):
    with pytest.raises(DivergenceError, match='2 weights are not finite, first layer'):
        train(tmp_path, 'FiniteLossHook', model=Poisoned(), checkpoint=dict(by_epoch=False))
    assert not list(tmp_path.glob('*.pth'))


def test_a_run_that_does_not_diverge_is_left_alone(tmp_path):
    train(tmp_path, 'FiniteLossHook', epochs=3)
    assert (tmp_path / 'epoch_3.pth').is_file()


@pytest.mark.parametrize('rank', [0, 1])
def test_one_process_writes_the_metrics_of_a_test(monkeypatch, rank):
    written = []
    monkeypatch.setattr('mmcloformer.engine.hooks.is_main_process', lambda: rank == 0)
    monkeypatch.setattr(LoggerHook, 'after_test_epoch', lambda *args: written.append(args[1:]))
    OneWriterLoggerHook().after_test_epoch('runner', dict(mAP=0.5))
    assert written == [('runner', dict(mAP=0.5))] * (rank == 0)


@pytest.mark.parametrize(('minutes', 'epochs'), [(0, 1), (None, 3), (60, 3)])
def test_a_time_limit_ends_a_training_with_an_epoch(tmp_path, minutes, epochs):
    hook = dict(type='TimeLimitHook', minutes=minutes)
    runner = toy_runner(tmp_path, custom_hooks=[hook], epochs=3)
    runner.train()
    assert runner.epoch == epochs
    assert (tmp_path / 'last_checkpoint').read_text().endswith(f'epoch_{epochs}.pth')
