from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseTTAModel, MMDistributedDataParallel
from mmengine.runner import Runner
from torch import nn

from mmcloformer import CloFormer
from mmcloformer.apis.config import build_model, read_config
from mmcloformer.engine.checkpoint_keys import WrapperKeysHook
from mmcloformer.errors import CheckpointError
from mmcloformer.models.state_dict import STATE_DICT_KEYS, check_whole_model
from tests import released
from tests.conftest import ROOT
from tests.toy import Toy, toy_runner, train

HOOKS = [dict(type='WrapperKeysHook'), dict(type='WholeCheckpointHook')]


def wrap(module):
    """Wrap as DistributedDataParallel does, without a process group."""
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = module
    return wrapper


class AveragingTTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return [sum(samples) / len(samples) for samples in data_samples_list]


WRAPPERS = dict(
    ddp=wrap,
    nested=lambda module: wrap(wrap(module)),
    tta=AveragingTTA,
    ddp_tta=lambda module: wrap(AveragingTTA(module)),
    compiled=torch.compile,
    ddp_compiled=lambda module: wrap(torch.compile(module)),
)


@pytest.mark.parametrize('name', WRAPPERS)
def test_any_difference_from_the_model_in_its_wrappers_is_named(name):
    inner = Toy()
    inner.test_step = None
    model = WRAPPERS[name](inner)
    weights = inner.state_dict()
    check_whole_model(model, weights, 'x')
    check_whole_model(model, {f'module.{key}': value for key, value in weights.items()}, 'x')
    for change, words in (
        (dict(more=torch.zeros(1)), r'1 unexpected: more'),
        ({'layer.bias': torch.zeros(3)}, r'layer\.bias \(3,\) instead of \(4,\)'),
    ):
        with pytest.raises(CheckpointError, match=words):
            check_whole_model(model, weights | change, 'x')
    del weights['layer.bias']
    with pytest.raises(CheckpointError, match=r'1 missing: .*layer\.bias'):
        check_whole_model(model, weights, 'x')


def filled(value):
    model = Toy()
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


class Uninitialised(Toy):
    def init_weights(self):
        """Do nothing: the host's fails for a compiled part."""


@pytest.mark.parametrize('resume', [False, True])
@pytest.mark.parametrize('own', ['plain', 'ddp', 'compiled', 'ddp_compiled'])
@pytest.mark.parametrize(
    'theirs',
    [
        lambda key: key,
        lambda key: f'module.{key}',
        lambda key: f'_orig_mod.{key}',
        lambda key: f'module._orig_mod.{key}',
        lambda key: key.replace('layer.', 'layer.module.'),
    ],
    ids=['plain', 'ddp', 'compiled', 'ddp_compiled', 'inside'],
)
def test_the_hosts_loading_understands_wrapped_checkpoints(tmp_path, resume, own, theirs):
    """Also of a model whose inner part is wrapped, in either direction."""
    train(tmp_path, epochs=1)
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    checkpoint['state_dict'] = {theirs(key): value for key, value in filled(5).state_dict().items()}
    torch.save(checkpoint, tmp_path / 'wrapped.pth')
    model = Uninitialised()
    model.layer = WRAPPERS[own](model.layer) if own != 'plain' else model.layer
    runner = toy_runner(
        tmp_path / 'next',
        model=model,
        epochs=1,
        custom_hooks=HOOKS,
        load_from=str(tmp_path / 'wrapped.pth'),
        resume=resume,
    )
    if resume:
        runner.train()  # No epoch is left.
    else:
        runner.load_or_resume()
    assert all((parameter == 5).all() for parameter in model.parameters())


@pytest.mark.parametrize('key', [None, *STATE_DICT_KEYS])
@pytest.mark.parametrize('ema', [[], [dict(type='EMAHook')]])
def test_weights_by_themselves_or_under_model_are_loaded(tmp_path, key, ema):
    """The host loads nothing from `model`."""
    weights = filled(3).state_dict()
    torch.save(weights if key is None else {key: weights}, tmp_path / 'weights.pth')
    runner = toy_runner(tmp_path, custom_hooks=[*ema, *HOOKS])
    runner.call_hook('before_run')
    runner.load_checkpoint(str(tmp_path / 'weights.pth'))
    assert all((parameter == 3).all() for parameter in runner.model.parameters())


def test_weights_of_the_released_code_are_not_ignored():
    runner = SimpleNamespace(model=nn.ModuleDict(dict(backbone=CloFormer('xxs'))))
    checkpoint = dict(model=released.state_dict('xxs'), epoch=3)
    with pytest.raises(CheckpointError, match=r'released code.*convert_checkpoint\.py'):
        WrapperKeysHook().after_load_checkpoint(runner, checkpoint)


@pytest.mark.parametrize(
    ('config', 'tta'),
    [
        ('demo/retinanet_cloformer_xxs_shapes', 'DetTTAModel'),
        ('demo/semantic-fpn_cloformer_xxs_shapes', 'SegTTAModel'),
    ],
)
def test_test_time_augmentation_by_the_real_runner(tmp_path, config, tta):
    cfg = read_config(ROOT / 'configs' / f'{config}.py')
    model = build_model(cfg)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    state_dict = model.state_dict()
    torch.save(dict(state_dict=state_dict), tmp_path / 'whole.pth')
    state_dict.popitem(last=False)
    torch.save(dict(state_dict=state_dict), tmp_path / 'partial.pth')
    tta_cfg = dict(tta_cfg=dict(nms=dict(type='nms'))) if tta == 'DetTTAModel' else {}
    settings = dict(cfg.model)
    runner = Runner(
        model=dict(type=tta, module=settings, **tta_cfg),
        work_dir=str(tmp_path),
        custom_hooks=HOOKS,
        default_scope=cfg.default_scope,
        experiment_name=str(tmp_path),
    )
    runner.load_checkpoint(str(tmp_path / 'whole.pth'))
    assert all((parameter == 0.5).all() for parameter in runner.model.module.parameters())
    with pytest.raises(CheckpointError, match=r'not of this config.*1 missing'):
        runner.load_checkpoint(str(tmp_path / 'partial.pth'))
