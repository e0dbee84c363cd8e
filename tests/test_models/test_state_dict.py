"""Which state dicts a backbone takes, and how it refuses others."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from torch import nn

from mmcloformer import CloFormer
from mmcloformer.errors import CheckpointError
from mmcloformer.models.deploy import DeployError
from mmcloformer.models.state_dict import get_state_dict, strip_wrapper_prefixes
from tests.archs import SEVERAL_BRANCHES, randomized


class Detector(nn.Module):
    """A backbone with a head, as the hosts nest them."""

    def __init__(self, **kwargs):
        super().__init__()
        self.backbone = CloFormer(SEVERAL_BRANCHES, **kwargs)
        self.head = nn.Linear(2, 2)


@pytest.fixture
def source():
    detector = Detector()
    detector.backbone = randomized()
    return detector


def assert_loaded(target, source):
    expected = source.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in target.state_dict().items())


def wrapped(prefix, state_dict):
    return {prefix + key: value for key, value in state_dict.items()}


@pytest.mark.parametrize(
    'state_dict',
    [
        {'head.weight': torch.ones(2, 2), 'head.bias': torch.ones(2)},
        {'module.head.weight': torch.ones(2, 2)},
        {'backbone_ema_decay': torch.ones(1), 'steps': torch.ones(1)},
        {},
    ],
)
def test_a_state_dict_without_the_backbone_passes(state_dict):
    detector = Detector()
    before = copy.deepcopy(detector.backbone.state_dict())
    detector.load_state_dict(state_dict, strict=False)
    for key, value in detector.backbone.state_dict().items():
        assert torch.equal(value, before[key])


def test_adapters_by_themselves_pass():
    detector = Detector()
    detector.backbone.stages[0][0].adapter = nn.Linear(2, 2)
    adapters = {k: torch.ones_like(v) for k, v in detector.state_dict().items() if 'adapter' in k}
    assert len(adapters) == 2
    detector.load_state_dict(adapters, strict=False)
    assert detector.backbone.stages[0][0].adapter.bias.sum() == 2
    detector.backbone.load_state_dict({'head.weight': torch.ones(2, 2)}, strict=False)


@pytest.mark.parametrize(
    'prefix', ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'module.module.']
)
def test_wrapper_prefixes_are_recognised(prefix, source, tmp_path):
    weights = wrapped(prefix, source.state_dict())
    torch.save(dict(state_dict=weights), tmp_path / 'weights.pth')

    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    target = Detector(init_cfg=init_cfg)
    target.backbone.init_weights()
    assert_loaded(target.backbone, source.backbone)

    bare = CloFormer(SEVERAL_BRANCHES)
    bare.load_state_dict(wrapped(prefix, source.backbone.state_dict()), strict=False)
    assert_loaded(bare, source.backbone)


def test_weights_load_into_a_backbone_with_a_compiled_block(source):
    """torch.compile renames the keys of a block already when it wraps it."""
    target = Detector()
    target.backbone.stages[0][0] = torch.compile(target.backbone.stages[0][0])
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.backbone.stem.proj.weight, source.backbone.stem.proj.weight)
    assert_loaded(target.backbone.stages[0][0]._orig_mod, source.backbone.stages[0][0])


def test_averaged_weights(source, tmp_path):
    """As mmengine's EMAHook saves them, and as the averaged model itself."""
    averaged = ExponentialMovingAverage(source)
    plain = {key: torch.zeros_like(value) for key, value in source.state_dict().items()}
    ema = averaged.state_dict()
    assert 'steps' in ema
    kinds = dict(
        averaged=dict(state_dict=ema),
        hook=dict(state_dict=source.state_dict(), ema_state_dict=wrapped('module.', plain)),
        only=dict(ema_state_dict=ema),
        bare=ema,
    )
    for name, content in kinds.items():
        torch.save(content, tmp_path / f'{name}.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / f'{name}.pth'))
        target = Detector(init_cfg=init_cfg).backbone
        target.init_weights()
        assert_loaded(target, source.backbone)


def test_two_models_in_one_state_dict_are_refused(source):
    both = {**source.state_dict(), **wrapped('module.', source.state_dict())}
    with pytest.raises(CheckpointError, match='two models'):
        get_state_dict(both, 'a file')


def test_half_a_backbone_is_refused_in_a_short_message(source):
    half = {k: v for k, v in source.state_dict().items() if not k.startswith('backbone.stages.1')}
    target = Detector()
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(CheckpointError) as error:
        target.load_state_dict(half, strict=False)
    assert 'missing: stages.1.0.norm1.weight' in str(error.value)
    assert len(str(error.value)) < 600
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


@pytest.mark.parametrize('prefix', ['backbone.', 'module.backbone.', 'encoder.'])
def test_weights_under_another_prefix_are_not_ignored(prefix, source):
    weights = wrapped(prefix, source.backbone.state_dict())
    with pytest.raises(CheckpointError, match=r"under the prefix '(backbone|encoder)\.'"):
        CloFormer(SEVERAL_BRANCHES).load_state_dict(weights, strict=False)


def test_another_backbone_is_refused():
    resnet = {'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)}
    with pytest.raises(CheckpointError, match=r'unexpected: conv1\.weight'):
        Detector().load_state_dict(resnet, strict=False)


@pytest.mark.parametrize('in_channels', [1, 4])
def test_other_channels_say_how_to_adapt(in_channels, source, tmp_path):
    torch.save(source.state_dict(), tmp_path / 'rgb.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'rgb.pth'))
    backbone = MODELS.build(
        dict(type='CloFormer', arch=SEVERAL_BRANCHES, in_channels=in_channels, init_cfg=init_cfg)
    )
    words = rf'images of 3 channels, and in_channels is {in_channels}.*stem\.conv1\.0\.weight'
    with pytest.raises(CheckpointError, match=words):
        backbone.init_weights()


def test_the_deploy_form_refuses_training():
    backbone = randomized()
    backbone.switch_to_deploy()
    assert not backbone.eval().training
    with pytest.raises(DeployError, match='cannot be trained'):
        backbone.train()
    assert not backbone.training
    with pytest.raises(DeployError, match='cannot be trained'):
        nn.Sequential(backbone).train()


def test_strip_wrapper_prefixes_keeps_other_parts():
    assert strip_wrapper_prefixes('module.a._orig_mod.module.b') == 'a.b'
    assert strip_wrapper_prefixes('a.modules.module_b.weight') == 'a.modules.module_b.weight'
    assert strip_wrapper_prefixes('backbone._orig_mod.') == 'backbone.'
    assert strip_wrapper_prefixes('') == ''
