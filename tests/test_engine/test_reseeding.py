import json
import pickle
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmcloformer.compat.reseeding import SeededIndex, reseed_augmentation
from mmcloformer.engine.reseeding import ReseedHook
from tests.conftest import ROOT
from tests.toy import Toy, train


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


def test_processes_drop_other_paths_and_repeat_them_after_resuming(tmp_path):
    """What is broadcast stays equal in both."""
    drawn = {}
    for name, stops in (('alone', ['3']), ('resumed', ['1', '3'])):
        worker = [sys.executable, '-m', 'tests.test_engine.drop_path_worker']
        processes = [
            subprocess.Popen(
                [*worker, str(rank), tmp_path / f'{name}_store', tmp_path / name, *stops],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in (0, 1)
        ]
        for process in processes:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output[-3000:]
        drawn[name] = [
            json.loads((tmp_path / f'{name}_{rank}.json').read_text()) for rank in (0, 1)
        ]
        assert {file.name for file in (tmp_path / name).glob('*.pth*')} == {'epoch_3.pth'}
    assert drawn['alone'] == drawn['resumed']
    first, second = drawn['alone']
    assert len(first) == len(second) == 3
    for one, other in zip(first, second):
        assert one[:-2] != other[:-2]
        assert one[-2:] == other[-2:]


class Augmented(Dataset):
    """Samples with their index and a number of every generator that an augmentation may use."""

    factor = 1

    def __len__(self):
        return 8

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return dict(index=index, noise=self.factor * noise)


def loader(sampler, workers, epoch=0, skip=0):
    """The loader of a Runner in its own process, at the start or in a resumed run."""
    runner = SimpleNamespace(seed=0, build_dataloader=Runner.build_dataloader)
    reseed_augmentation(runner)
    made = runner.build_dataloader(
        dict(
            dataset=Augmented(),
            batch_size=2,
            sampler=dict(type=sampler, shuffle=True),
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=dict(type='default_collate'),
        ),
        seed=0,
    )
    made.sampler.set_epoch(epoch)
    if skip:
        made.sampler.skip(skip)
    return made


def take(batches, number):
    found = []
    for _, batch in zip(range(number), batches):
        random.random()  # What the training around it draws.
        torch.rand(random.randrange(5))
        found += [(int(i), float(noise)) for i, noise in zip(batch['index'], batch['noise'])]
    return found


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_a_later_epoch_is_the_same_in_a_resumed_run(workers):
    alone = loader('DefaultSampler', workers)
    epochs = []
    for epoch in range(3):
        alone.sampler.set_epoch(epoch)
        epochs.append(take(alone, 4))
    for epoch in (1, 2):
        assert take(loader('DefaultSampler', workers, epoch), 4) == epochs[epoch]
    noises = {noise for epoch in epochs for _, noise in epoch}
    assert len(noises) == 3 * 8


@pytest.mark.skipif(not hasattr(InfiniteSampler, 'skip'), reason='upstream loads what it skips')
@pytest.mark.parametrize('workers', [0, 2])
def test_iterations_are_the_same_after_a_skip(workers):
    alone = take(loader('InfiniteSampler', workers), 10)
    assert take(loader('InfiniteSampler', workers, skip=6), 7) == alone[6:]
    assert len({noise for _, noise in alone}) == 20


def test_the_dataset_stays_what_it_is():
    dataset = loader('DefaultSampler', 0).dataset
    assert isinstance(dataset, Augmented)
    dataset.factor = 2  # As hooks replace its pipeline.
    draw = SeededIndex(3)
    draw.seed = 5
    copy = pickle.loads(pickle.dumps(dataset))  # To a worker that is spawned.
    assert dataset[pickle.loads(pickle.dumps(draw))] == copy[draw] == dataset[draw]
    assert type(dataset[draw]['index']) is int
    assert dataset[3] != dataset[3]
