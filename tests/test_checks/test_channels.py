import copy
import functools
import itertools
import re
from importlib import import_module

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mmcloformer.checks.channels import channel_problems, check_channels
from mmcloformer.checks.examine import check_dataset
from mmcloformer.checks.presence import check_data
from mmcloformer.errors import ConfigError
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
DEMO = dict(
    mmdet='retinanet_cloformer_xxs_shapes',
    mmseg='semantic-fpn_cloformer_xxs_shapes',
    mmpretrain='cloformer_xxs_shapes',
)
CONVERTS = dict(mmdet='bgr_to_rgb', mmseg='bgr_to_rgb', mmpretrain='to_rgb')


@TRANSFORMS.register_module()
class StepOfAUser:
    def __call__(self, results):
        return results


@functools.cache
def read(scope):
    return Config.fromfile(ROOT / 'configs/demo' / f'{DEMO[scope]}.py')


def config(scope, **options):
    cfg = copy.deepcopy(read(scope))
    cfg.merge_from_dict(options)
    return cfg


def preprocessor(cfg):
    return cfg.model.get('data_preprocessor') or cfg.data_preprocessor


def grey(cfg):
    """Change a config to grey images, all of it."""
    cfg.model.backbone.in_channels = 1
    settings = preprocessor(cfg)
    settings.update(mean=[120.0], std=[60.0])
    settings[CONVERTS[cfg.default_scope]] = False
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.pipeline[0].color_type = 'grayscale'
    return cfg


def problems(cfg, splits=('train',)):
    return list(channel_problems(cfg, splits))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_configs_agree(path):
    assert problems(Config.fromfile(path), ('train', 'val', 'test')) == []


def channels_after(scope, settings, channels):
    """What the host's own preprocessor makes of images; None if it fails."""
    models = import_module(f'{scope}.models')
    settings = dict(settings)
    settings.pop('num_classes', None)
    kind = settings.pop('type', 'ClsDataPreprocessor')
    images = torch.zeros(1, channels, 8, 8)
    data = dict(inputs=images if scope == 'mmpretrain' else [*images])
    if scope == 'mmdet':
        data['data_samples'] = None
    try:
        return getattr(models, kind)(**settings)(data)['inputs'].shape[1]
    except (AssertionError, IndexError, RuntimeError):
        return None


@pytest.mark.parametrize('scope', DEMO)
def test_refused_is_what_the_host_cannot_do(scope):
    """In all combinations of loader, normalisation and backbone."""
    cfg = config(scope)
    settings = preprocessor(cfg)
    for name in ('batch_augments', 'pad_mask', 'size', 'test_cfg'):
        settings.pop(name, None)
    lengths = [(None, None), (1, 1), (3, 3), (3, 1), (1, 3), (4, 4)]
    refused = 0
    for color, (mean, std), converts, wanted in itertools.product(
        ('color', 'grayscale'), lengths, (False, True), (1, 3, 4)
    ):
        cfg.model.backbone.in_channels = wanted
        cfg.train_dataloader.dataset.pipeline[0].color_type = color
        settings.update(mean=mean and [0.0] * mean, std=std and [1.0] * std)
        settings[CONVERTS[scope]] = converts
        works = channels_after(scope, settings, 3 if color == 'color' else 1) == wanted
        found = problems(cfg)
        assert bool(found) == (not works), (color, mean, std, converts, wanted)
        assert len(found) <= 1
        assert all(re.search(r'; set \S.*[\w)]', line) for line in found)
        refused += not works
    assert 20 < refused < 72


@pytest.mark.parametrize('scope', DEMO)
def test_grey_images(scope):
    assert problems(grey(config(scope)), ('train', 'val', 'test')) == []
    (message,) = problems(config(scope, **{'model.backbone.in_channels': 1}))
    for words in (
        'train_dataloader.dataset.pipeline loads images of 3 channels',
        'model.backbone.in_channels=1',
        'data_preprocessor has a mean of 3 and a std of 3 values',
        "set color_type='grayscale' of LoadImageFromFile (or other files), mean and std of 1 value",
        'or model.backbone.in_channels=3',
    ):
        assert words in message
    cfg = grey(config(scope))
    cfg.model.backbone.in_channels = 3
    cfg.model.backbone.type = 'mmengine.CloFormer'
    (message,) = problems(cfg, ('val',))
    assert 'val_dataloader.dataset.pipeline loads images of 1 channel,' in message
    assert "color_type='color'" in message


@pytest.mark.parametrize('scope', DEMO)
def test_four_channels(scope):
    options = {'model.backbone.in_channels': 4}
    options['train_dataloader.dataset.pipeline.0.color_type'] = 'unchanged'
    cfg = config(scope, **options)
    assert ' has a mean of 3 and a std of 3 values' in problems(cfg)[0]
    preprocessor(cfg).update(mean=None, std=None)
    preprocessor(cfg)[CONVERTS[scope]] = False
    assert problems(cfg) == []
    cfg.train_dataloader.dataset.pipeline[0].color_type = 'color'
    assert (
        "set color_type='unchanged' of LoadImageFromFile (or other files), or" in problems(cfg)[0]
    )


def test_all_splits_and_wrapped_data_sets_are_compared():
    cfg = grey(config('mmdet'))
    colour = dict(type='LoadImageFromFile')
    data = cfg.train_dataloader.dataset
    wrapped = dict(data, pipeline=[colour, *data.pipeline[1:]])
    both = dict(type='ConcatDataset', datasets=[data, wrapped])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=both)
    cfg.test_dataloader.dataset.pipeline[0] = colour
    found = problems(cfg, ('train', 'val', 'test'))
    assert [line.split('_')[0].split()[-1] for line in found] == ['train', 'test']


def test_what_is_not_known_is_left_alone():
    def change(function):
        cfg = config('mmseg', **{'model.backbone.in_channels': 1})
        settings = preprocessor(cfg)
        settings.update(mean=[0.0], std=[1.0])
        assert problems(cfg)
        function(cfg, cfg.train_dataloader.dataset.pipeline)
        return problems(cfg)

    changes = [
        lambda cfg, steps: steps.insert(1, dict(type='StepOfAUser')),
        lambda cfg, steps: steps.insert(1, dict(type='RandomGrayscale', prob=1.0)),
        lambda cfg, steps: steps.insert(1, dict(type='Albu', transforms=[])),
        lambda cfg, steps: steps.insert(1, dict(type='RandomChoice', transforms=[[]])),
        lambda cfg, steps: steps.insert(1, dict(type='RGB2Gray', out_channels=1)),
        lambda cfg, steps: steps[0].update(color_type='unchanged'),
        lambda cfg, steps: steps[0].update(imdecode_backend='tifffile'),
        lambda cfg, steps: steps[0].update(type='LoadSingleRSImageFromFile'),
        lambda cfg, steps: steps[0].update(type='LoadBiomedicalImageFromFile'),
        lambda cfg, steps: cfg.model.update(type='ModelOfAUser'),
        lambda cfg, steps: cfg.model.data_preprocessor.update(type='PreprocessorOfAUser'),
        lambda cfg, steps: cfg.model.backbone.update(type='ResNet'),
        lambda cfg, steps: cfg.update(default_scope='mmpose'),
    ]
    assert [change(function) for function in changes] == [[]] * len(changes)
    assert problems(Config(dict(default_scope='mmdet'))) == []
    # The number of channels of the files is not known, that of the mean is.
    cfg = config('mmseg', **{'model.backbone.in_channels': 4})
    cfg.train_dataloader.dataset.pipeline[0].type = 'LoadSingleRSImageFromFile'
    assert 'has a mean of 3' in problems(cfg)[0]
    assert problems(cfg, ())[0].startswith('the numbers of channels disagree: model.backbone')


@pytest.mark.parametrize('wanted', [1, 4])
def test_the_examination_looks_into_the_first_file(shapes, wanted):
    """The number of channels depends on the files, which have three."""
    cfg = config('mmpretrain', **{'model.backbone.in_channels': wanted})
    cfg.data_preprocessor = dict(num_classes=4)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = f'{shapes}/imagenet'
        dataset.pipeline[0].color_type = 'unchanged'
    check_data(cfg, ('train', 'val'))
    found = check_dataset(cfg, workers=0).problems
    assert [line.split('; set')[0] for line in found] == [
        f'the numbers of channels disagree: {split}_dataloader.dataset.pipeline loads images of '
        f'3 channels, model.backbone.in_channels={wanted}'
        for split in ('train', 'val')
    ]
    cfg.model.backbone.in_channels = 3
    assert check_dataset(cfg, workers=0).problems == []


def test_training_and_the_examination_say_it(shapes):
    cfg = config('mmpretrain', **{'model.backbone.in_channels': 1})
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes}/imagenet'
    with pytest.raises(ConfigError, match='the numbers of channels disagree: train') as error:
        check_data(cfg, ('train', 'val'))
    assert len(str(error.value).splitlines()) == 2
    found = check_dataset(cfg, workers=0).problems
    assert [line for line in found if 'channels disagree' in line] == str(error.value).splitlines()
    check_channels(grey(cfg), ('train', 'val', 'test'))
