import copy
import functools
import itertools
import re

import pytest
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmengine.registry import TRANSFORMS

from mmcloformer.checks.channels import channel_problems
from mmcloformer.checks.examine import check_dataset
from mmcloformer.checks.presence import check_data
from mmcloformer.config import ConfigView
from mmcloformer.errors import DataError
from tests.conftest import ROOT
from tests.spelling import SPELLINGS, spell

CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
DEMO = dict(
    mmdet='retinanet_cloformer_xxs_shapes',
    mmseg='semantic-fpn_cloformer_xxs_shapes',
    mmpretrain='cloformer_xxs_shapes',
)
PREPROCESSORS = dict(
    mmdet='DetDataPreprocessor', mmseg='SegDataPreProcessor', mmpretrain='ClsDataPreprocessor'
)
CONVERTS = dict(mmdet='bgr_to_rgb', mmseg='bgr_to_rgb', mmpretrain='to_rgb')
TRAIN = 'train_dataloader.dataset.pipeline'


@TRANSFORMS.register_module()
class StepOfAUser:
    def __call__(self, results):
        return results


class Infrared(ImgDataPreprocessor):
    """A user's preprocessor that adds a channel."""

    def forward(self, data, training=False):
        data = super().forward(data, training)
        images = data['inputs']
        return dict(data, inputs=images[:, [0, 1, 2, 0]] if images.shape[1] == 3 else images)


@functools.cache
def read(host):
    return Config.fromfile(ROOT / 'configs/demo' / f'{DEMO[host]}.py')


def config(host, **options):
    cfg = copy.deepcopy(read(host))
    cfg.merge_from_dict(options)
    return cfg


def preprocessor(cfg):
    return cfg.model.get('data_preprocessor') or cfg.data_preprocessor


def steps_of(cfg, split='train'):
    return cfg[f'{split}_dataloader'].dataset.pipeline


def grey(cfg):
    """Change a config to grey images, all of it."""
    cfg.model.backbone.in_channels = 1
    settings = preprocessor(cfg)
    settings.update(mean=[120.0], std=[60.0])
    settings[CONVERTS[cfg.default_scope]] = False
    for split in ('train', 'val', 'test'):
        steps_of(cfg, split)[0].color_type = 'grayscale'
    return cfg


def problems(cfg, splits=('train',)):
    return list(channel_problems(ConfigView(cfg), splits))


@pytest.fixture(params=DEMO)
def host(request):
    return request.param


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_configs_agree(path):
    assert problems(Config.fromfile(path), ('train', 'val', 'test')) == []


def test_the_advice_mends_what_is_refused(host):
    """In all combinations of loader, normalisation and backbone."""
    cfg = config(host)
    refused = 0
    lengths = [(None, None), (1, 1), (3, 3), (3, 1), (1, 3), (4, 4)]
    for color, (mean, std), converts, wanted in itertools.product(
        ('color', 'grayscale'), lengths, (False, True), (1, 3, 4)
    ):
        cfg.model.backbone.in_channels = wanted
        loader, settings = steps_of(cfg)[0], preprocessor(cfg)
        loader.color_type = color
        settings.update(mean=mean and [0.0] * mean, std=std and [1.0] * std)
        settings[CONVERTS[host]] = converts
        for found in problems(cfg):
            refused += 1
            assert found.field == TRAIN
            if match := re.search(r"color_type='(\w+)'", found.remedy):
                loader.color_type = match[1]
            if match := re.search(r'mean and std of (\d)', found.remedy):
                settings.update(mean=[0.0] * int(match[1]), std=[1.0] * int(match[1]))
            if f'{CONVERTS[host]}=False' in found.remedy:
                settings[CONVERTS[host]] = False
            assert problems(cfg) == []
    assert 20 < refused < 72


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_grey_images_in_every_spelling(host, spelling):
    cfg = grey(config(host))
    preprocessor(cfg).type = spell(host, 'MODELS', PREPROCESSORS[host], spelling)
    steps_of(cfg)[0].type = spell('mmengine', 'TRANSFORMS', 'LoadImageFromFile', spelling)
    assert problems(cfg, ('train', 'val', 'test')) == []
    cfg.model.backbone.in_channels = 3
    (found,) = problems(cfg)
    assert "color_type='color'" in found.remedy
    assert found.remedy.endswith('or model.backbone.in_channels=1')


def test_four_channels(host):
    cfg = config(host, **{'model.backbone.in_channels': 4})
    steps_of(cfg)[0].color_type = 'unchanged'
    (found,) = problems(cfg)
    assert 'mean and std of' in found.remedy
    preprocessor(cfg).update(mean=None, std=None)
    preprocessor(cfg)[CONVERTS[host]] = False
    assert problems(cfg) == []
    steps_of(cfg)[0].color_type = 'color'
    assert "color_type='unchanged'" in problems(cfg)[0].remedy


def test_all_splits_and_wrapped_data_sets_are_compared():
    cfg = grey(config('mmdet'))
    colour = dict(type='LoadImageFromFile')
    data = cfg.train_dataloader.dataset
    wrapped = dict(data, pipeline=[colour, *data.pipeline[1:]])
    both = dict(type='ConcatDataset', datasets=[data, wrapped])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=both)
    cfg.test_dataloader.dataset.pipeline[0] = colour
    assert [found.field for found in problems(cfg, ('train', 'val', 'test'))] == [
        'train_dataloader.dataset.dataset.datasets.1.pipeline',
        'test_dataloader.dataset.pipeline',
    ]


CHANGES = [
    lambda cfg, steps: steps.insert(1, dict(type='StepOfAUser')),
    lambda cfg, steps: steps.insert(1, dict(type='RandomGrayscale', prob=1.0)),
    lambda cfg, steps: steps.insert(1, dict(type='mmseg.Albu', transforms=[])),
    lambda cfg, steps: steps.insert(1, dict(type='RandomChoice', transforms=[[]])),
    lambda cfg, steps: steps.insert(1, dict(type='RGB2Gray', out_channels=1)),
    lambda cfg, steps: steps[0].update(color_type='unchanged'),
    lambda cfg, steps: steps[0].update(imdecode_backend='tifffile'),
    lambda cfg, steps: steps[0].update(type='LoadSingleRSImageFromFile'),
    lambda cfg, steps: steps[0].update(type='LoadBiomedicalImageFromFile'),
    lambda cfg, steps: cfg.model.update(type='ModelOfAUser'),
    lambda cfg, steps: cfg.model.data_preprocessor.update(type='PreprocessorOfAUser'),
    lambda cfg, steps: cfg.model.backbone.update(type='ResNet'),
]


@pytest.mark.parametrize('change', CHANGES)
def test_what_is_not_known_is_left_alone(change):
    cfg = config('mmseg', **{'model.backbone.in_channels': 1})
    preprocessor(cfg).update(mean=[0.0], std=[1.0])
    assert problems(cfg)
    change(cfg, steps_of(cfg))
    assert problems(cfg) == []


@pytest.mark.parametrize(('kind', 'refused'), [(Infrared, False), (BaseDataPreprocessor, True)])
def test_the_preprocessor_itself_is_asked(kind, refused):
    cfg = config('mmseg', **{'model.backbone.in_channels': 4})
    cfg.model.data_preprocessor = dict(type=kind)
    assert bool(problems(cfg)) == refused


def test_what_no_pipeline_can_mend_is_found_in_the_model():
    cfg = config('mmseg', **{'model.backbone.in_channels': 4})
    assert [found.field for found in problems(cfg, ())] == ['model.data_preprocessor']
    steps_of(cfg)[0].type = 'LoadSingleRSImageFromFile'
    assert [found.field for found in problems(cfg)] == [TRAIN]
    assert problems(Config(dict(default_scope='mmdet'))) == []


def test_a_mean_may_be_a_number():
    cfg = config('mmpretrain')
    preprocessor(cfg).update(mean=127.5, std=127.5)
    assert problems(cfg) == []


@pytest.mark.parametrize('wanted', [1, 4])
def test_the_examination_looks_into_the_first_file(shapes, wanted):
    """The number of channels depends on the files, which have three."""
    cfg = config('mmpretrain', **{'model.backbone.in_channels': wanted})
    cfg.data_preprocessor = dict(num_classes=4)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes}/imagenet'
        steps_of(cfg, split)[0].color_type = 'unchanged'
    check_data(cfg, ('train', 'val'))  # Only the files say it.
    found = check_dataset(cfg, workers=0).problems
    assert [problem.field for problem in found] == [
        f'{split}_dataloader.dataset.pipeline' for split in ('train', 'val')
    ]
    cfg.model.backbone.in_channels = 3
    assert check_dataset(cfg, workers=0).problems == []
    cfg.model.backbone.in_channels = wanted
    steps_of(cfg)[0].color_type = 'color'
    with pytest.raises(DataError, match=r' {2}train_dataloader\.dataset\.pipeline: '):
        check_data(cfg, ('train', 'val'))
