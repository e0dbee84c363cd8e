"""A resumed run loads the same augmented samples, whatever holds them."""

import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets import AspectRatioBatchSampler, MultiImageMixDataset
from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    DefaultSampler,
    InfiniteSampler,
    RepeatDataset,
)
from mmengine.runner import Runner
from mmpretrain.datasets import KFoldDataset
from mmseg.datasets import MultiImageMixDataset as SegMultiImageMixDataset
from torch.utils.data import BatchSampler

from mmcloformer.compat.seeded_batches import SeededBatch, seed_batches


def load(info):
    """Draw from every generator that an augmentation may use."""
    noise = random.random() + np.random.rand() + torch.rand(()).item()
    return dict(index=info['sample_idx'], noise=noise)


class Augmented(BaseDataset):
    METAINFO = dict(classes=('one', 'two'))  # noqa: RUF012  (the host's own way)

    def __init__(self, length=8):
        self.length = length
        super().__init__(pipeline=[load])

    def load_data_list(self):
        return [dict(width=1 + index % 2, height=1) for index in range(self.length)]

    def get_cat_ids(self, index):
        return [index % 2]


class Plain:
    """A data set that is no class of torch's."""

    def __init__(self):
        self.samples = Augmented()

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.samples[index]


class Batched(Augmented):
    """Loads a whole batch at once."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Noise:
    """A transform of a wrapper, which draws as well."""

    def get_indexes(self, dataset):
        return [random.randrange(len(dataset))]

    get_indices = get_indexes

    def __call__(self, results):
        other = results['mix_results'][0]['noise']
        return dict(index=results['index'], noise=results['noise'] + other + np.random.rand())


def images(length=8):
    return dict(type=Augmented, length=length)


def repeat(dataset):
    return dict(type=RepeatDataset, dataset=dataset, times=2)


def concat(*datasets):
    return dict(type=ConcatDataset, datasets=list(datasets))


def balance(dataset):
    return dict(type=ClassBalancedDataset, dataset=dataset, oversample_thr=0.1)


def fold(dataset):
    return dict(type=KFoldDataset, dataset=dataset, fold=1, num_splits=5)


def mix(dataset, kind=MultiImageMixDataset):
    return dict(type=kind, dataset=dataset, pipeline=[dict(type=Noise)])


WRAPPERS = dict(
    none=images(),
    plain=dict(type=Plain),
    batched=dict(type=Batched),
    repeat=repeat(images(4)),
    concat=concat(images(5), images(3)),
    mix_of_mmseg=mix(concat(images()), SegMultiImageMixDataset),
    mix_repeat=mix(repeat(images(4))),
    concat_balanced=concat(balance(images(4)), images(4)),
    concat_mix=concat(mix(images(4)), repeat(images(2))),
    repeat_fold=repeat(fold(images(5))),
)


class Run:
    """What a Runner does with its loader, at the start or after resuming."""

    def __init__(self, wrapper='none', workers=0, epoch=0, *, sampler='DefaultSampler', **settings):
        self.runner = SimpleNamespace(seed=0, epoch=epoch, build_dataloader=Runner.build_dataloader)
        seed_batches(self.runner)
        settings.setdefault('persistent_workers', workers > 0)
        self.loader = self.runner.build_dataloader(
            dict(
                dataset=WRAPPERS[wrapper],
                batch_size=2,
                sampler=dict(type=sampler, shuffle=True),
                num_workers=workers,
                collate_fn=dict(type='default_collate'),
                **settings,
            ),
            seed=0,
        )
        self.batches = None

    def train(self, batches):
        """Load some batches of an endless loader, with other draws in between."""
        self.batches = self.batches or iter(self.loader)
        found = []
        for _, batch in zip(range(batches), self.batches):
            random.random()
            torch.rand(random.randrange(5))
            found += zip(batch['index'].tolist(), batch['noise'].tolist())
        return found

    def train_epoch(self):
        self.loader.batch_sampler.sampler.set_epoch(self.runner.epoch)
        self.batches = None
        found = self.train(100)
        self.runner.epoch += 1
        return found


def check_later_epochs(*args, **settings):
    alone = Run(*args, **settings)
    epochs = [alone.train_epoch() for _ in range(3)]
    resumed = Run(*args, epoch=1, **settings)
    assert [resumed.train_epoch() for _ in range(2)] == epochs[1:]
    noises = [noise for epoch in epochs for _, noise in epoch]
    assert len(noises) >= 3 * 7
    assert len(set(noises)) == len(noises)


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_a_later_epoch_is_the_same_in_a_resumed_run(wrapper):
    check_later_epochs(wrapper)


@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('wrapper', ['repeat', 'mix_repeat', 'batched'])
def test_a_later_epoch_is_the_same_from_worker_processes(wrapper, persistent):
    check_later_epochs(wrapper, 2, persistent_workers=persistent)


@pytest.mark.slow
def test_processes_that_are_spawned():
    """They receive the data set and the batches as pickles."""
    spawned = Run('repeat', 1, multiprocessing_context='spawn').train_epoch()
    assert spawned == Run('repeat').train_epoch()


@pytest.mark.parametrize(
    'batches', [dict(type=AspectRatioBatchSampler), dict(type=BatchSampler, drop_last=True)]
)
def test_batch_samplers_of_the_config(batches):
    check_later_epochs(batch_sampler=batches)


@pytest.mark.skipif(not hasattr(InfiniteSampler, 'skip'), reason='upstream loads what it skips')
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('wrapper', ['none', 'repeat', 'concat'])
def test_iterations_are_the_same_after_a_skip(wrapper, workers):
    alone = Run(wrapper, workers, sampler='InfiniteSampler').train(10)
    resumed = Run(wrapper, workers, sampler='InfiniteSampler')
    resumed.loader.sampler.skip(6)
    assert resumed.train(7) == alone[6:]
    assert len({noise for _, noise in alone}) == 20


def test_samplers_and_data_sets_stay_what_they_are():
    """mmengine and hooks of this package look at the classes."""
    loader = Run(batch_sampler=dict(type=BatchSampler, drop_last=False)).loader
    assert loader.batch_sampler.__class__ is BatchSampler
    assert loader.batch_sampler.sampler.__class__ is DefaultSampler
    assert type(loader.dataset) is Augmented
    assert len(loader) == 4


def test_only_reading_a_batch_seeds():
    batch = pickle.loads(pickle.dumps(SeededBatch([3, 4], seed=5)))
    before = random.getstate()
    assert (len(batch), batch[0], batch[:], batch.seed) == (2, 3, [3, 4], 5)
    assert random.getstate() == before
    draws = {(tuple(batch), random.random(), np.random.rand(), float(torch.rand(()))) for _ in '12'}
    assert len(draws) == 1
