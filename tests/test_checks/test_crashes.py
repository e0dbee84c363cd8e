"""What is said after a crash; crashes of real data are in `test_bad_data.py`."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmcloformer.checks.crashes import explain_crashes
from mmcloformer.errors import ConfigError, UserError


@pytest.mark.parametrize(
    ('batch', 'words'),
    [
        (1, 'train_dataloader.batch_size is 1. To change it, set train_dataloader.batch_size to 2'),
        (4, r'last batch .* one image .*batch_size is 4.* set train_dataloader.drop_last=True'),
    ],
)
def test_batchnorm_says_what_to_set(batch, words):
    cfg = Config(dict(train_dataloader=dict(batch_size=batch)))
    with pytest.raises(ConfigError, match=words), explain_crashes(cfg, 'my_config.py'):
        nn.BatchNorm2d(3).train()(torch.zeros(1, 3, 1, 1))


class Broken(BaseDataset):
    def load_data_list(self):
        return [dict(img_path='absent.jpg', seg_fields=[])] * 4


class BrokenImage(Broken):
    def prepare_data(self, index):
        raise OSError('image file is truncated')


LEAF = dict(type=BaseDataset, ann_file=__file__)


def test_masks_that_a_model_does_not_predict():
    words = r"set val_evaluator\.metric .* to 'bbox'"
    with pytest.raises(ConfigError, match=words), explain_crashes(Config(), 'my_config.py'):
        raise KeyError('segm is not in results')


def loader(dataset=LEAF, **settings):
    init_default_scope('mmseg')
    settings = dict(batch_size=1, sampler=dict(type='DefaultSampler')) | settings
    Runner.build_dataloader(dict(dataset=dataset, **settings))


def load(dataset, workers):
    next(iter(DataLoader(dataset, num_workers=workers, collate_fn=pseudo_collate)))


def label_out_of_range():
    from mmseg.models.losses import CrossEntropyLoss

    CrossEntropyLoss()(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 7))


def out_of_memory():
    try:
        label_out_of_range()
    except IndexError as error:
        raise torch.cuda.OutOfMemoryError('CUDA out of memory') from error


def fail(error):
    raise error


OF_DATA = dict(
    in_process=lambda: load(BrokenImage(), 0),
    in_worker=lambda: load(BrokenImage(), 1),
    image_in_a_worker=lambda: load(Broken(pipeline=[dict(type='LoadImageFromFile')]), 1),
    annotation_file=loader,
    label=label_out_of_range,
    gpu=lambda: fail(RuntimeError('CUDA error: device-side assert triggered')),
)


@pytest.mark.parametrize('crash', OF_DATA.values(), ids=OF_DATA)
def test_a_crash_that_data_can_cause(crash, capsys):
    named = pytest.raises(SystemExit, match=r'tools/misc/check_dataset\.py my_config\.py')
    with named, explain_crashes(Config(), 'my_config.py'):
        crash()
    trace = capsys.readouterr().err
    assert trace.startswith('Traceback')
    assert 'in explain_crashes' in trace


OTHERS = dict(
    no_workers=lambda: loader([1, 2], num_workers=0, persistent_workers=True),
    batch_size=lambda: loader([1, 2], batch_size=0),
    sampler=lambda: loader([1, 2], sampler=dict(type='DefaultSampler', shufle=True)),
    unknown_dataset=lambda: loader(dict(type='CocoDatset')),
    dataset_argument=lambda: loader(dict(LEAF, ann_fle='a')),
    unknown_transform=lambda: loader(dict(LEAF, pipeline=[dict(type='Resze')])),
    transform_argument=lambda: loader(dict(LEAF, pipeline=[dict(type='Resize')])),
    out_of_memory=out_of_memory,
    a_layer=lambda: fail(ValueError('of a layer')),
    user=lambda: fail(UserError('as it is')),
    interrupt=lambda: fail(KeyboardInterrupt()),
    other_type=lambda: fail(KeyError('Expected more than 1 value per channel')),
)


PASSED = (AssertionError, KeyboardInterrupt, LookupError, RuntimeError, TypeError, ValueError)


@pytest.mark.parametrize('crash', OTHERS.values(), ids=OTHERS)
def test_other_crashes_pass(crash, capsys):
    """`check_dataset.py` finds nothing, or says what the traceback says."""
    with pytest.raises(PASSED) as raised, explain_crashes(Config(), 'my_config.py'):
        crash()
    assert not isinstance(raised.value, ConfigError)
    assert 'Traceback' not in capsys.readouterr().err
