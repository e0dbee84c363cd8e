import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.dist import broadcast, sync_random_seed

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.engine.hooks import ReseedHook
from mmcloformer.errors import DivergenceError
from tests.processes import run_in_group
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


class Silent(Toy):
    """Reports no losses."""

    def train_step(self, data, optim_wrapper):
        super().train_step(data, optim_wrapper)


def test_a_model_that_reports_no_losses_is_trained(tmp_path):
    assert train(tmp_path, 'FiniteLossHook', model=Silent()).iter == 2


def test_infinite_weights_after_a_finite_loss_are_not_saved(tmp_path):
    with pytest.raises(DivergenceError, match='2 weights are not finite, first layer'):
        train(tmp_path, 'FiniteLossHook', model=Poisoned(), checkpoint=dict(by_epoch=False))
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize(
    ('minutes', 'checkpoint', 'epochs'),
    [
        (0, dict(interval=1), 1),
        (None, dict(interval=1), 3),
        (60, dict(interval=1), 3),
        (0, dict(interval=2), 2),
        (0, dict(interval=1, save_begin=2), 2),
    ],
)
def test_a_time_limit_ends_a_training_with_a_checkpoint(tmp_path, minutes, checkpoint, epochs):
    hooks = [dict(type='TimeLimitHook', minutes=minutes), dict(type='FiniteLossHook')]
    runner = toy_runner(tmp_path, custom_hooks=hooks, epochs=3, checkpoint=checkpoint)
    runner.train()
    assert runner.epoch == epochs
    assert (tmp_path / 'last_checkpoint').read_text().endswith(f'epoch_{epochs}.pth')


@pytest.mark.parametrize(('end', 'warned'), [(500, True), (6, False)])
def test_a_warm_up_longer_than_the_run_is_logged(tmp_path, end, warned):
    train(
        tmp_path,
        'WarmUpHook',
        epochs=3,
        param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=end),
    )
    (log,) = tmp_path.glob('*/*.log')
    words = 'WARNING - param_scheduler.0: the warm-up'
    assert (words in log.read_text()) == warned


class Noisy(Toy):
    """Draws from every generator that a model may draw from."""

    def forward(self, inputs, target, mode='tensor'):
        noise = torch.rand(()) + np.random.rand() + random.random()
        return dict(loss=(self.layer(inputs) - noise).square().mean())


@pytest.mark.parametrize('hooks', [[], ['ReseedHook']])
def test_a_resumed_run_draws_the_same_numbers(tmp_path, hooks):
    weights = []
    for name, stops in (('alone', [4]), ('resumed', [1, 2, 4])):
        for stop in stops:
            runner = train(tmp_path / name, *hooks, model=Noisy(), epochs=stop, resume=True)
        weights.append(runner.model.layer.bias)
    assert weights[0].equal(weights[1]) == bool(hooks)


def test_every_iteration_draws_other_numbers_and_every_seed(tmp_path):
    draws = set()
    for seed in (0, 1):
        for iteration in range(20):
            ReseedHook().before_train_iter(SimpleNamespace(seed=seed, iter=iteration), 0)
            draws |= {float(torch.rand(())), np.random.rand(), random.random()}
    assert len(draws) == 2 * 20 * 3


class Dropping(Toy):
    """Records which samples drop path keeps, and the iteration's seed of all processes."""

    def __init__(self):
        super().__init__()
        self.drop_path = DropPath(0.5)
        self.masks = []

    def forward(self, inputs, target, mode='tensor'):
        mask = self.drop_path(torch.ones(64, 1, 1, 1)).flatten()
        size = torch.randint(1000, ())
        broadcast(size)  # As mmdet's BatchSyncRandomResize does.
        self.masks.append([*mask.tolist(), float(size), float(sync_random_seed())])
        return super().forward(inputs, target, mode)


def record_masks(rank, work_dir, stops):
    masks = []
    for stop in stops:
        model = Dropping()
        train(
            work_dir,
            'ReseedHook',
            model=model,
            epochs=stop,
            resume=True,
            checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=1),
        )
        masks += model.masks
    work_dir.with_name(f'{work_dir.name}_{rank}.json').write_text(json.dumps(masks))


def test_processes_drop_other_paths_and_repeat_them_after_resuming(tmp_path):
    """What is broadcast stays equal in both."""
    drawn = {}
    for name, stops in (('alone', [3]), ('resumed', [1, 3])):
        run_in_group(record_masks, tmp_path / f'{name}_store', tmp_path / name, stops)
        drawn[name] = [
            json.loads((tmp_path / f'{name}_{rank}.json').read_text()) for rank in (0, 1)
        ]
        assert {file.name for file in (tmp_path / name).glob('*.pt*')} == {'epoch_3.pth'}
    assert drawn['alone'] == drawn['resumed']
    first, second = drawn['alone']
    assert len(first) == len(second) == 3
    for one, other in zip(first, second):
        assert one[:-2] != other[:-2]
        assert one[-2:] == other[-2:]
