import copy

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations

from mmcloformer import CloFormer
from mmcloformer.errors import CheckpointError
from mmcloformer.models.deploy import DeployError, switch_to_deploy
from tests.archs import SEVERAL_BRANCHES


def trained(arch=SEVERAL_BRANCHES, **kwargs):
    """A backbone whose affine pairs and running statistics are not those of the start."""
    torch.manual_seed(0)
    backbone = CloFormer(arch, **kwargs)
    for module in backbone.modules():
        if isinstance(module, (_BatchNorm, nn.GroupNorm)):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, 0.0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone.eval()


def deployed(backbone):
    other = copy.deepcopy(backbone)
    other.switch_to_deploy()
    return other


@torch.no_grad()
def assert_equal_outputs(a, b, image):
    for out, expected in zip(a(image), b(image)):
        assert (out - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize('size', [(64, 64), (65, 97), (1, 1)])
@pytest.mark.parametrize('arch', ['xxs', 'xs', SEVERAL_BRANCHES])
def test_outputs_stay(arch, size):
    backbone = trained(arch)
    assert_equal_outputs(deployed(backbone), backbone, torch.randn(2, 3, *size))


def test_other_norms_stay():
    backbone = trained(norm_cfg=dict(type='GN', num_groups=2))
    other = deployed(backbone)
    assert isinstance(other.stem.conv1[1], nn.GroupNorm)
    assert_equal_outputs(other, backbone, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize(
    ('name', 'part'),
    [
        ('stages.0.0.norm1', nn.GroupNorm(4, 16)),
        ('stages.0.0.norm2', nn.BatchNorm2d(16)),
        ('stages.0.0.attn', nn.Identity()),
        ('stages.0.0.attn.local.0', nn.Identity()),
        ('stages.0.0.attn.local.0.gate', nn.Identity()),
        ('stages.0.0.ffn', nn.Identity()),
        ('stages.0.0', nn.Identity()),
        ('stem.conv1', nn.Conv2d(3, 8, 3)),
    ],
)
def test_a_replaced_part_is_refused_before_anything_is_folded(name, part):
    backbone = trained()
    backbone.set_submodule(name, part.eval())
    before = copy.deepcopy(backbone.state_dict())
    with pytest.raises(DeployError, match=rf'{name} is a {type(part).__name__} and not a plain'):
        backbone.switch_to_deploy()
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], value) for key, value in after.items())


def test_what_users_set_on_norms_stays():
    backbone = trained()
    for module in backbone.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 0.1
    calls = []
    backbone.stages[0][0].norm1.register_forward_hook(lambda *_: calls.append(1))
    other = deployed(backbone)
    assert_equal_outputs(other, backbone, torch.randn(2, 3, 64, 64))
    assert len(calls) == 2


@pytest.mark.parametrize('norm_cfg', [dict(type='BN', track_running_stats=False), dict(type='BN')])
def test_batch_norms_that_use_the_batch_are_kept(norm_cfg):
    backbone = (
        trained()
        if 'track_running_stats' not in norm_cfg
        else CloFormer(SEVERAL_BRANCHES, norm_cfg=norm_cfg).eval()
    )
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    other = deployed(backbone)
    assert isinstance(other.stem.conv1[1], nn.BatchNorm2d)
    assert_equal_outputs(other, backbone, torch.randn(2, 3, 64, 64))


class Adapted(nn.Conv2d):
    """A convolution with an adapter beside it."""

    def __init__(self, conv):
        fields = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding')
        super().__init__(*(getattr(conv, field) for field in fields))
        self.adapter = copy.deepcopy(conv)

    def forward(self, x):
        return super().forward(x) + self.adapter(x)


@pytest.mark.parametrize('change', [Adapted, parametrizations.spectral_norm])
@pytest.mark.parametrize('name', ['stem.conv2', 'stages.0.0.shortcut'])
def test_changed_convolutions_keep_their_batch_norm(name, change):
    backbone = trained()
    layers = backbone.get_submodule(name)
    layers[0] = change(layers[0]).eval()
    other = deployed(backbone)
    assert isinstance(other.get_submodule(name)[1], nn.BatchNorm2d)
    assert_equal_outputs(other, backbone, torch.randn(2, 3, 64, 64))


def test_state_dict_of_the_deploy_form():
    backbone = trained()
    before = backbone.state_dict()
    after = deployed(backbone).state_dict()
    gone = before.keys() - after.keys()
    assert after.keys() < before.keys()
    batch_norms = [n for n, m in backbone.named_modules() if isinstance(m, _BatchNorm)]
    block_norms = [n for n, _ in backbone.named_modules() if n.endswith(('.norm1', '.norm2'))]
    assert len(batch_norms) == 4 + 3
    assert {key.rpartition('.')[0] for key in gone} == {*batch_norms, *block_norms}
    assert all(after[key].shape == before[key].shape for key in after)


def test_no_call_copies_weights():
    """As it does into the layout of the maps, where they are in another."""
    backbone = deployed(trained('xxs'))
    shapes = {str([*weight.shape]) for weight in backbone.parameters() if weight.dim() == 4}
    with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profile:
        backbone(torch.randn(1, 3, 64, 64))
    copied = [str(e.input_shapes[0]) for e in profile.events() if e.name == 'aten::copy_']
    assert copied
    assert shapes.isdisjoint(copied)


def test_twice_is_once():
    backbone = deployed(trained())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        once = backbone(image)
        backbone.switch_to_deploy()
        assert all(map(torch.equal, backbone(image), once))


def test_refused_in_training_mode():
    backbone = trained().train()
    before = copy.deepcopy(backbone.state_dict())
    with pytest.raises(DeployError, match=r'call eval\(\)'):
        backbone.switch_to_deploy()
    assert not backbone.deployed
    assert before.keys() == backbone.state_dict().keys()


def test_forms_do_not_take_each_others_weights():
    training = trained()
    deploy = deployed(training)
    before = copy.deepcopy(deploy.state_dict())
    with pytest.raises(CheckpointError, match=r'load first, then call switch_to_deploy'):
        deploy.load_state_dict(training.state_dict(), strict=False)
    assert all(torch.equal(before[key], value) for key, value in deploy.state_dict().items())
    with pytest.raises(CheckpointError, match=r'switch_to_deploy\(\) before loading'):
        training.load_state_dict(deploy.state_dict(), strict=False)


def test_saved_deploy_form_loads_into_a_deploy_form(tmp_path):
    source, target = deployed(trained()), deployed(CloFormer(SEVERAL_BRANCHES).eval())
    torch.save(source.state_dict(), tmp_path / 'deploy.pth')
    target.load_state_dict(torch.load(tmp_path / 'deploy.pth', weights_only=True))
    assert_equal_outputs(target, source, torch.randn(1, 3, 64, 64))


def test_whole_detector_keeps_what_is_not_the_backbone():
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    model = MODELS.build(
        dict(
            type='RetinaNet',
            backbone=dict(type='CloFormer', arch=SEVERAL_BRANCHES),
            neck=dict(
                type='FPN',
                in_channels=[16, 32, 48, 64],
                out_channels=16,
                num_outs=5,
                norm_cfg=dict(type='BN'),
            ),
            bbox_head=dict(
                type='RetinaHead',
                num_classes=3,
                in_channels=16,
                feat_channels=16,
                stacked_convs=1,
                anchor_generator=dict(
                    type='AnchorGenerator',
                    octave_base_scale=4,
                    scales_per_octave=3,
                    ratios=[1.0],
                    strides=[4, 8, 16, 32, 64],
                ),
                bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            ),
        )
    )
    model.backbone = trained()
    neck = copy.deepcopy(model.neck.state_dict())
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected = model.eval()(image, mode='tensor')
        assert switch_to_deploy(model) == 1
        found = model(image, mode='tensor')
    assert all(torch.equal(neck[key], value) for key, value in model.neck.state_dict().items())
    assert not any(isinstance(m, _BatchNorm) for m in model.backbone.modules())
    for levels, expected_levels in zip(found, expected):
        for a, b in zip(levels, expected_levels):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_model_without_the_backbone():
    with pytest.raises(DeployError, match='no CloFormer'):
        switch_to_deploy(nn.Sequential(nn.Conv2d(3, 3, 1)).eval())
