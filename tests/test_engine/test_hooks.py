import re

import pytest

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.errors import DivergenceError
from tests.toy import Toy, toy_runner, train


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


def test_infinite_weights_after_a_finite_loss_are_not_saved(tmp_path):
    with pytest.raises(DivergenceError, match='2 weights are not finite, first layer'):
        train(tmp_path, 'FiniteLossHook', model=Poisoned(), checkpoint=dict(by_epoch=False))
    assert not list(tmp_path.glob('*.pth'))


def test_a_run_that_does_not_diverge_is_left_alone(tmp_path):
    train(tmp_path, 'FiniteLossHook', epochs=3)
    assert (tmp_path / 'epoch_3.pth').is_file()


@pytest.mark.parametrize(('minutes', 'epochs'), [(0, 1), (None, 3), (60, 3)])
def test_a_time_limit_ends_a_training_with_an_epoch(tmp_path, minutes, epochs):
    hook = dict(type='TimeLimitHook', minutes=minutes)
    runner = toy_runner(tmp_path, custom_hooks=[hook], epochs=3)
    runner.train()
    assert runner.epoch == epochs
    assert (tmp_path / 'last_checkpoint').read_text().endswith(f'epoch_{epochs}.pth')
