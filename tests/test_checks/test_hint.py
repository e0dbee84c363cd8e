"""Crashes of real data are in `test_bad_data.py`."""

import pytest
import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmcloformer.checks.hint import suggest_data_check
from mmcloformer.errors import UserError


class Broken(BaseDataset):
    def load_data_list(self):
        return [dict(img_path='absent.jpg')] * 4

    def prepare_data(self, index):
        raise OSError('image file is truncated')


def load_in_process():
    next(iter(DataLoader(Broken())))


def load_in_worker():
    next(iter(DataLoader(Broken(), num_workers=1)))


def build():
    BaseDataset(ann_file=__file__)


def gpu():
    raise RuntimeError('CUDA error: device-side assert triggered')


@pytest.mark.parametrize('fail', [load_in_process, load_in_worker, build, gpu])
def test_crashes_of_the_data(fail, capsys):
    named = pytest.raises(SystemExit, match=r'tools/misc/check_dataset\.py my_config\.py')
    with named, suggest_data_check('my_config.py'):
        fail()
    trace = capsys.readouterr().err
    assert trace.startswith('Traceback')
    assert f'in {fail.__name__}' in trace


@pytest.mark.parametrize(
    'error', [UserError('as it is'), ValueError('of a layer'), KeyboardInterrupt()]
)
def test_others_pass(error, capsys):
    with pytest.raises(type(error)), suggest_data_check('my_config.py'):
        raise error
    assert not capsys.readouterr().err


LEAF = dict(type=BaseDataset, ann_file=__file__)
SEGMENTED = dict(img_path='absent.jpg', seg_fields=[])


def loader(dataset=LEAF, **settings):
    init_default_scope('mmseg')
    sampler = dict(type='DefaultSampler')
    Runner.build_dataloader(dict(dict(dataset=dataset, sampler=sampler, batch_size=1), **settings))


class Pipelined(Broken):
    def prepare_data(self, index):
        return self.pipeline(dict(SEGMENTED))


def pipelined(*steps, workers=0):
    init_default_scope('mmseg')
    dataset = Pipelined(pipeline=list(steps))
    next(iter(DataLoader(dataset, num_workers=workers, collate_fn=pseudo_collate)))


def cross_entropy(weight):
    from mmseg.models.losses import CrossEntropyLoss

    scores, labels = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    CrossEntropyLoss(class_weight=weight)(scores, labels)


def out_of_memory():
    try:
        cross_entropy([1.0])
    except RuntimeError as error:
        raise torch.cuda.OutOfMemoryError('CUDA out of memory') from error


class Unequal(Broken):
    def prepare_data(self, index):
        return torch.zeros(index + 1)


FAULTS = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)
CONFIG_FAULTS = dict(
    no_workers=lambda: loader([1, 2], num_workers=0, persistent_workers=True),
    batch_size=lambda: loader([1, 2], batch_size=0),
    sampler=lambda: loader([1, 2], sampler=dict(type='DefaultSampler', shufle=True)),
    unknown_dataset=lambda: loader(dict(type='CocoDatset')),
    dataset_argument=lambda: loader(dict(LEAF, ann_fle='a')),
    unknown_transform=lambda: loader(dict(LEAF, pipeline=[dict(type='Resze')])),
    transform_argument=lambda: loader(dict(LEAF, pipeline=[dict(type='Resize')])),
    missing_step=lambda: pipelined(dict(type='RandomCrop', crop_size=(8, 8))),
    missing_step_in_a_worker=lambda: pipelined(dict(type='GenerateEdge'), workers=1),
    sizes_of_a_batch=lambda: next(iter(DataLoader(Unequal(), batch_size=2))),
    class_weight=lambda: cross_entropy([1.0]),
    out_of_memory=out_of_memory,
)


@pytest.mark.parametrize('fail', CONFIG_FAULTS.values(), ids=CONFIG_FAULTS)
def test_faults_of_the_config_are_not_blamed_on_data(fail, capsys):
    """`check_dataset.py` finds nothing, or says what the traceback says."""
    with pytest.raises(FAULTS) as raised, suggest_data_check('my_config.py'):
        fail()
    assert isinstance(raised.value, FAULTS)  # Not SystemExit.
    assert 'Traceback' not in capsys.readouterr().err


DATA_FAULTS = dict(
    annotation_file=lambda: loader(LEAF),
    image_in_a_worker=lambda: pipelined(dict(type='LoadImageFromFile'), workers=1),
    label=lambda: cross_entropy([1.0, 2.0, 3.0]) or label_out_of_range(),
)


def label_out_of_range():
    from mmseg.models.losses import CrossEntropyLoss

    CrossEntropyLoss()(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 7))


@pytest.mark.parametrize('fail', DATA_FAULTS.values(), ids=DATA_FAULTS)
def test_faults_of_data_in_built_objects(fail):
    with pytest.raises(SystemExit, match='check_dataset'), suggest_data_check('my_config.py'):
        fail()
