"""Which state dicts a backbone takes, and how it refuses others."""

import copy
import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage, PretrainedInit, Sequential
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmcloformer import CloFormer
from mmcloformer.errors import CheckpointError
from mmcloformer.models.deploy import DeployError
from mmcloformer.models.state_dict import get_state_dict, match_keys, strip_wrapper_prefixes
from tests.archs import SEVERAL_BRANCHES, randomized


class Detector(nn.Module):
    """A backbone with a head, as the hosts nest them."""

    def __init__(self, arch=SEVERAL_BRANCHES, **kwargs):
        super().__init__()
        self.backbone = CloFormer(arch, **kwargs)
        self.head = nn.Linear(2, 2)


@pytest.fixture
def source():
    detector = Detector()
    detector.backbone = randomized()
    return detector


@pytest.fixture
def classifier(source, tmp_path):
    """A checkpoint as mmpretrain saves it, of a backbone that has only the last output norm."""
    unused = ('backbone.norm0', 'backbone.norm1', 'backbone.norm2')
    state_dict = {k: v for k, v in source.state_dict().items() if not k.startswith(unused)}
    torch.save(dict(state_dict=state_dict, meta={}), tmp_path / 'classifier.pth')
    return tmp_path / 'classifier.pth'


def pretrained(checkpoint, **init_cfg):
    return dict(type='Pretrained', checkpoint=str(checkpoint), **init_cfg)


def assert_loaded(target, source):
    expected = source.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in target.state_dict().items())


def wrapped(prefix, state_dict):
    return {prefix + key: value for key, value in state_dict.items()}


@pytest.mark.parametrize('prefix', [None, 'backbone.', 'backbone', 'module.backbone'])
def test_classifier_into_detector(source, classifier, prefix):
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    MMLogger.get_current_instance().addHandler(handler)
    backbone = CloFormer(
        SEVERAL_BRANCHES, out_indices=(1, 2, 3), init_cfg=pretrained(classifier, prefix=prefix)
    )
    backbone.init_weights()
    expected = source.backbone.state_dict()
    for key, value in backbone.state_dict().items():
        if not key.startswith(('norm1', 'norm2')):
            assert torch.equal(value, expected[key]), key
    total = len(backbone.state_dict())
    (counts,) = (message for message in messages if 'tensors' in message)
    assert f'loaded {total - 4} of {total} tensors, new: norm1, norm2' in counts


def test_it_survives_the_hosts_own_initialisation(source, classifier):
    """`Runner` calls the detector's `init_weights`, which calls that of every child."""
    init_default_scope('mmdet')
    config = dict(type='CloFormer', arch=SEVERAL_BRANCHES, init_cfg=pretrained(classifier))
    neck = dict(type='mmdet.FPN', in_channels=[16, 24, 64], out_channels=8, num_outs=3)
    model = Sequential(MODELS.build(config), MODELS.build(neck))
    model.init_weights()
    model.init_weights()
    assert torch.equal(model[0].stem.proj.weight, source.backbone.stem.proj.weight)


@pytest.mark.parametrize(
    'kind',
    ['Pretrained', 'mmengine.Pretrained', 'mmengine.model.PretrainedInit', PretrainedInit],
)
def test_pretrained_weights_replace_those_of_other_initialisers(source, classifier, kind):
    others = dict(type='Constant', layer='Conv2d', val=7.0)
    weights = pretrained(classifier) | dict(type=kind)
    backbone = CloFormer(SEVERAL_BRANCHES, out_indices=(3,), init_cfg=[weights, others])
    backbone.init_weights()
    assert backbone.init_cfg == [weights, others]
    assert torch.equal(backbone.stem.proj.weight, source.backbone.stem.proj.weight)
    alone = CloFormer(SEVERAL_BRANCHES, init_cfg=[others])
    alone.init_weights()
    assert (alone.stem.proj.weight == 7).all()


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
    before = copy.deepcopy(detector.backbone)
    detector.load_state_dict(state_dict, strict=False)
    assert_loaded(detector.backbone, before)


def test_adapters_by_themselves_pass():
    detector = Detector()
    detector.backbone.stages[0][0].adapter = nn.Linear(2, 2)
    adapters = {k: torch.ones_like(v) for k, v in detector.state_dict().items() if 'adapter' in k}
    assert len(adapters) == 2
    detector.load_state_dict(adapters, strict=False)
    assert detector.backbone.stages[0][0].adapter.bias.sum() == 2
    detector.backbone.load_state_dict({'head.weight': torch.ones(2, 2)}, strict=False)


@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.'])
def test_wrapper_prefixes_are_recognised(prefix, source, tmp_path):
    for content in (source.state_dict(), source.backbone.state_dict()):
        torch.save(wrapped(prefix, content), tmp_path / 'weights.pth')
        backbone = CloFormer(SEVERAL_BRANCHES, init_cfg=pretrained(tmp_path / 'weights.pth'))
        backbone.init_weights()
        assert_loaded(backbone, source.backbone)
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
    plain = {key: torch.zeros_like(value) for key, value in source.state_dict().items()}
    ema = ExponentialMovingAverage(source).state_dict()
    assert 'steps' in ema
    kinds = dict(
        averaged=dict(state_dict=ema),
        hook=dict(state_dict=source.state_dict(), ema_state_dict=wrapped('module.', plain)),
        only=dict(ema_state_dict=ema),
        bare=ema,
    )
    for name, content in kinds.items():
        torch.save(content, tmp_path / f'{name}.pth')
        target = CloFormer(SEVERAL_BRANCHES, init_cfg=pretrained(tmp_path / f'{name}.pth'))
        target.init_weights()
        assert_loaded(target, source.backbone)
    for kind in (ExponentialMovingAverage, AveragedModel):
        bare = CloFormer(SEVERAL_BRANCHES)
        bare.load_state_dict(kind(source.backbone).state_dict(), strict=False)
        assert_loaded(bare, source.backbone)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda sd: sd.pop('backbone.stages.1.0.ffn.fc1.weight'), 'missing: stages.1.0.ffn.fc1'),
        (lambda sd: sd.update({'backbone.x': torch.zeros(1)}), 'unexpected: x'),
        (lambda sd: sd.update({'backbone.stem.proj.bias': torch.zeros(3)}), 'stem.proj.bias (3,) '),
        (
            lambda sd: [sd.pop(key) for key in list(sd) if 'stages.1' in key],
            'missing: stages.1.0.norm1.weight',
        ),
    ],
)
def test_a_half_fitting_checkpoint_is_an_error_that_lists(classifier, change, words):
    checkpoint = torch.load(classifier, weights_only=True)
    change(checkpoint['state_dict'])
    torch.save(checkpoint, classifier)
    detector = Detector(init_cfg=pretrained(classifier))
    before = copy.deepcopy(detector)
    loads = [
        detector.backbone.init_weights,
        # The host's `load_checkpoint`, which also loads `load_from`, would only warn.
        lambda: load_checkpoint(detector, str(classifier)),
        lambda: detector.load_state_dict(checkpoint['state_dict'], strict=False),
    ]
    for load in loads:
        with pytest.raises(CheckpointError, match='does not fit this CloFormer') as error:
            load()
        assert words in str(error.value)
        assert len(str(error.value)) < 600
        assert_loaded(detector, before)


def test_another_arch_and_another_model(classifier, tmp_path):
    with pytest.raises(CheckpointError, match=r'of another shape.*Check arch'):
        CloFormer('xs', init_cfg=pretrained(classifier)).init_weights()
    resnet = {'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)}
    with pytest.raises(CheckpointError, match=r'unexpected: conv1\.weight'):
        Detector().load_state_dict(resnet, strict=False)
    torch.save(dict(state_dict=resnet), tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match=rf'{tmp_path}/resnet\.pth: .* missing'):
        CloFormer('xxs', init_cfg=pretrained(tmp_path / 'resnet.pth')).init_weights()
    torch.save(dict(state_dict={}), tmp_path / 'empty.pth')
    with pytest.raises(CheckpointError, match='no state dict'):
        CloFormer('xxs', init_cfg=pretrained(tmp_path / 'empty.pth')).init_weights()


@pytest.mark.parametrize('prefix', ['backbone.', 'module.backbone.', 'encoder.'])
def test_weights_under_another_prefix_are_not_ignored(prefix, source):
    weights = wrapped(prefix, source.backbone.state_dict())
    with pytest.raises(CheckpointError, match=r"under the prefix '(backbone|encoder)\.'"):
        CloFormer(SEVERAL_BRANCHES).load_state_dict(weights, strict=False)


@pytest.mark.parametrize('in_channels', [1, 4])
def test_other_channels_say_how_to_adapt(in_channels, classifier):
    init_cfg = pretrained(classifier)
    backbone = CloFormer(SEVERAL_BRANCHES, in_channels=in_channels, init_cfg=init_cfg)
    words = rf'images of 3 channels, and in_channels is {in_channels}.*stem\.conv1\.0\.weight'
    with pytest.raises(CheckpointError, match=words):
        backbone.init_weights()


def test_the_deploy_form_refuses_training():
    backbone = randomized()
    backbone.switch_to_deploy()
    for model in (backbone, nn.Sequential(backbone)):
        with pytest.raises(DeployError, match='cannot be trained'):
            model.train()
        assert not backbone.training


def test_keys_differ_by_wrappers_only():
    for key, plain in {
        'module.a._orig_mod.module.b': 'a.b',
        'a.modules.module_b.weight': 'a.modules.module_b.weight',
        'backbone._orig_mod.': 'backbone.',
        '': '',
    }.items():
        assert strip_wrapper_prefixes(key) == plain
    wanted = ['a.module.w', 'b']
    assert [*match_keys(dict.fromkeys(['_orig_mod.a.w', 'b', 'c']), wanted)] == [*wanted, 'c']
    exact = ['a.w', 'a.module.w']  # Of a layer with one called `module` in it.
    assert [*match_keys(dict.fromkeys(exact), exact)] == exact
    for given in (['b', 'module.b'], ['module.b', '_orig_mod.b']):
        with pytest.raises(CheckpointError, match='two models'):
            match_keys(dict.fromkeys(given), wanted)
        with pytest.raises(CheckpointError, match='two models'):
            get_state_dict(dict.fromkeys(given, torch.ones(1)), 'a file')


def test_the_counters_of_batch_norms_may_be_missing():
    """As in weights of torch 0.4, and of exporters that leave out what inference does not need."""
    source, target = randomized(), CloFormer(SEVERAL_BRANCHES)
    weights = source.state_dict()
    for key in [key for key in weights if 'num_batches' in key]:
        del weights[key]
    found = target.state_dict()
    assert len(weights) < len(found)
    target.load_state_dict(weights)
    assert all(torch.equal(found[key], value) for key, value in weights.items())
