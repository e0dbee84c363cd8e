"""Layer-wise learning rates, read off the optimizers that the hosts build."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper

from mmcloformer import CloFormer
from mmcloformer.apis.config import build_model, read_config
from mmcloformer.errors import ConfigError
from tests.conftest import ROOT

RATE = 0.5
ADAMW = dict(type='AdamW', lr=1.0, weight_decay=0.1)
NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)


def build(name):
    return build_model(read_config(ROOT / 'configs' / f'{name}.py'))


def settings(model, constructor='LayerDecayOptimWrapperConstructor', **paramwise):
    """Learning rate and weight decay of every trainable parameter, by name."""
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(ADAMW),
        constructor=constructor,
        paramwise_cfg={'layer_decay_rate': RATE, **paramwise},
    )
    groups = build_optim_wrapper(model, ConfigDict(cfg)).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group['lr'], group['weight_decay'])
        for group in groups
        for parameter in group['params']
    }
    assert found.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    return found


def test_layers_count_from_the_stem_to_the_output_norms():
    backbone = CloFormer('xxs')
    layers = [backbone.get_layer_depth(name) for name, _ in backbone.named_parameters()]
    assert {number for _, number in layers} == {1 + 2 + 2 + 6 + 2 + 1}
    depths = [depth for depth, _ in layers]
    assert depths == sorted(depths)
    assert set(depths) == set(range(14))
    for name, expected in {
        'stem.conv1.0.weight': 0,
        'stages.0.0.norm1.weight': 1,
        'stages.1.1.shortcut.0.weight': 4,
        'stages.2.5.ffn.fc1.bias': 10,
        'stages.3.1.attn.proj.weight': 12,
        'norm0.weight': 13,
    }.items():
        assert backbone.get_layer_depth(name) == (expected, 14)
        assert backbone.get_layer_depth(f'backbone.{name}', 'backbone.') == (expected, 14)
    assert backbone.get_layer_depth('stages.0.weight', 'backbone.') == (13, 14)


@pytest.mark.parametrize(
    'name', ['retinanet_cloformer_xxs_coco', 'semantic-fpn_cloformer_xxs_ade20k']
)
def test_rates_fall_towards_the_image_beside_mmengines_own_options(name):
    model = build(name)
    model.backbone.stem.requires_grad_(False)
    slow = dict(backbone=dict(lr_mult=0.1))
    decayed, plain = settings(model, custom_keys=slow), settings(model, **NO_DECAY)
    assert not any(parameter.startswith('backbone.stem') for parameter in plain)
    for parameter, (lr, weight_decay) in plain.items():
        depth, layers = model.backbone.get_layer_depth(parameter, 'backbone.')
        assert lr == pytest.approx(RATE ** (layers - 1 - depth))
        in_backbone = parameter.startswith('backbone.')
        assert in_backbone or lr == 1
        assert decayed[parameter] == (pytest.approx(lr * (0.1 if in_backbone else 1)), 0.1)
        one_dimensional = model.get_parameter(parameter).ndim == 1
        assert weight_decay == (0 if one_dimensional else 0.1), parameter


def test_a_classifiers_settings_are_mmpretrains():
    model = build('cloformer_xxs_imagenet')
    theirs = settings(model, 'LearningRateDecayOptimWrapperConstructor', **NO_DECAY)
    assert settings(model, **NO_DECAY) == theirs


def test_what_is_missing_is_said():
    model = build('retinanet_cloformer_xxs_coco')
    for rate in (None, 0, 2, 'a'):
        with pytest.raises(ConfigError, match=r'layer_decay_rate, a number in \(0, 1\]; got'):
            settings(model, layer_decay_rate=rate)
    model.backbone = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(ConfigError, match=r'get_layer_depth; that of RetinaNet is Conv2d'):
        settings(model)
