import copy
import functools
import pickle

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcloformer import CloFormer
from mmcloformer.errors import ConfigError
from mmcloformer.models import ARCHS, resolve_arch
from tests.archs import SEVERAL_BRANCHES


def tiny(**kwargs):
    torch.manual_seed(0)
    return CloFormer(arch=SEVERAL_BRANCHES, **{'drop_path_rate': 0.0, **kwargs})


@pytest.fixture
def image():
    return torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ('arch', 'with_head'),
    [
        ('xxs', 4_166_728),
        ('xs', 7_172_216),
        ('s', 12_345_576),
        ('xxs-global', 3_998_024),
        ('xxs-local', 4_733_256),
    ],
)
def test_parameters_are_the_published_models(arch, with_head):
    backbone = MODELS.build(dict(type='CloFormer', arch=arch, out_indices=(3,)))
    head = 1000 * (backbone.out_channels[-1] + 1)
    assert sum(p.numel() for p in backbone.parameters()) + head == with_head


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_every_host_finds_it_unscoped(scope):
    registry = __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS
    assert isinstance(registry.build(dict(type='CloFormer', arch='xxs')), CloFormer)


@pytest.mark.parametrize('out_indices', [(0,), (2,), (3,), (0, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_out_indices_choose_maps_and_leave_no_unused_parameter(image, out_indices):
    backbone = tiny(out_indices=out_indices)
    outs = backbone(image)
    sum(out.square().sum() for out in outs).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    everything = tiny().eval()
    everything.load_state_dict(backbone.state_dict(), strict=False)
    with torch.no_grad():
        expected = everything(image)
        for out, stage in zip(backbone.eval()(image), out_indices):
            torch.testing.assert_close(out, expected[stage])


def test_every_parameter_gets_a_gradient(image):
    backbone = tiny()
    sum((out * torch.randn_like(out)).sum() for out in backbone(image)).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_checkpointed_equals_plain(image):
    plain, recomputed = tiny(drop_path_rate=0.3), tiny(drop_path_rate=0.3, with_cp=True)
    recomputed.load_state_dict(plain.state_dict())
    results = []
    for backbone in (plain, recomputed):
        torch.manual_seed(1)
        sum((out * out).sum() for out in backbone(image)).backward()
        results.append([*(p.grad for p in backbone.parameters()), *backbone.buffers()])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('mode', [torch.contiguous_format, torch.channels_last])
def test_memory_format_changes_no_number_and_channels_last_is_kept(image, mode):
    backbone = tiny().eval()
    with torch.no_grad():
        expected = backbone(image)
        outs = backbone.to(memory_format=mode)(image.to(memory_format=mode))
    for out, reference in zip(outs, expected):
        torch.testing.assert_close(out, reference, rtol=1e-4, atol=1e-5)
        assert out.is_contiguous(memory_format=mode)


def test_channels_last_of_one_channel_is_kept(image):
    """Such an image is contiguous in both formats."""
    grey = image[:, :1].contiguous(memory_format=torch.channels_last)
    backbone = tiny(in_channels=1).eval()
    for out in backbone(grey):
        assert out.is_contiguous(memory_format=torch.channels_last)
    for out in backbone(image[:, :1].clone(memory_format=torch.contiguous_format)):
        assert out.is_contiguous()


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('train', [True, False])
def test_on_a_cpu_every_map_is_channels_last(image, batch, train):
    """By its very strides: torch goes by them, and a batch of one may look it and not have them."""
    backbone = tiny().train(train)
    strays = []

    def look(module, inputs, out, name):
        for x in (*inputs, out):
            if x.stride() != torch.empty_like(x, memory_format=torch.channels_last).stride():
                strays.append((name, tuple(x.shape), x.stride()))

    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and '.gate.' not in name:  # Of a part of the channels.
            module.register_forward_hook(functools.partial(look, name=name))
    with torch.set_grad_enabled(train):
        backbone(image[:batch])
    assert not strays


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_low_precision_stays_near(image, dtype):
    backbone = tiny().eval()
    with torch.no_grad():
        expected = backbone(image)
        with torch.autocast('cpu', dtype=dtype):
            autocast = backbone(image)
        converted = copy.deepcopy(backbone).to(dtype)(image.to(dtype))
    for reference, *outs in zip(expected, autocast, converted):
        for out in outs:
            error = (out.float() - reference).norm() / reference.norm()
            assert error < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_autocast_trains(image):
    backbone = tiny()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = sum(out.float().square().mean() for out in backbone(image))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters())


def test_attention_memory_does_not_grow_with_queries_times_keys():
    """At 512x512 the first stage has 16384 queries and 256 keys: 4.2 M scores a head."""
    backbone = CloFormer(arch='xxs-global', out_indices=(0,)).eval()
    attention = backbone.stages[0][0].attn.pooled
    x = torch.randn(1, 32, 128, 128)
    profiler = torch.profiler.profile(profile_memory=True, record_shapes=True)
    with torch.no_grad(), profiler as profile:
        attention(x)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    scores = 4 * 128 * 128 * 16 * 16 * 4
    assert largest < scores / 4


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages(image, frozen_stages):
    backbone = tiny(frozen_stages=frozen_stages).train()
    frozen = [] if frozen_stages < 0 else ['stem.']
    for stage in range(frozen_stages):
        frozen += [f'stages.{stage}.', f'norm{stage}.']
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad != name.startswith(tuple(frozen)), name
    for name, module in backbone.named_modules():
        if name.startswith(tuple(frozen)):
            assert not module.training
    before = {name: b.clone() for name, b in backbone.named_buffers()}
    backbone(image)
    for name, buffer in backbone.named_buffers():
        assert torch.equal(before[name], buffer) == name.startswith(tuple(frozen))


def test_norm_eval_and_train_returns_self():
    backbone = tiny(norm_eval=True)
    assert backbone.train() is backbone
    for module in backbone.modules():
        assert module.training != isinstance(module, _BatchNorm)


def test_norm_cfg_reaches_every_batch_norm():
    backbone = tiny(norm_cfg=dict(type='SyncBN', requires_grad=False))
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) == 4 + 3
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())


def test_norm_cfg_may_name_a_norm_of_the_host():
    """mmcv looks it up in the registry of the default scope, which the root registry is not."""
    from mmpretrain.models.utils import LayerNorm2d

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone = tiny(norm_cfg=dict(type='LN2d'))
    assert isinstance(backbone.stem.conv1[1], LayerNorm2d)


def test_drop_path_rises_to_the_rate():
    rates = [b.drop_path.drop_prob for stage in CloFormer('xs').stages for b in stage]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.06)
    assert rates == sorted(rates)


def test_in_channels():
    assert tiny(in_channels=4)(torch.randn(2, 4, 32, 32))[0].shape == (2, 16, 8, 8)


def test_an_empty_batch():
    backbone = tiny().eval()
    for out, channels in zip(backbone(torch.empty(0, 3, 65, 97)), backbone.out_channels):
        assert out.shape[:2] == (0, channels)


def test_copies_and_pickles():
    backbone = tiny()
    for clone in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        clone.load_state_dict(backbone.state_dict())


def broken(**change):
    return {**SEVERAL_BRANCHES, **change}


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(arch='tiny'), ['arch', 'xxs-global', 'xs']),
        (dict(arch=3), ['arch', 'xxs-global', 'xs']),
        (dict(arch=None), ['arch', 'xxs-global', 'xs']),
        (dict(arch=dict(embed_dims=[1, 2, 3, 4])), ['arch', 'depths', 'missing']),
        (dict(arch=broken(extra=1)), ['extra', 'unknown']),
        (dict(arch=broken(depths=[2, 2, 6])), ['depths', '4 entries']),
        (dict(arch=broken(depths=[2, 2, 0, 2])), ['depths', 'positive']),
        (dict(arch=broken(embed_dims=[15, 32, 48, 64])), ['embed_dims[0]', 'even']),
        (dict(arch=broken(num_heads=[3, 4, 6, 8])), ['num_heads[0]', 'divide']),
        (
            dict(arch=broken(group_splits=[[1, 1, 1], [2, 0, 2], [0, 3, 3], [4, 4, 0]])),
            ['group_splits[0]', 'sum'],
        ),
        (
            dict(arch=broken(kernel_sizes=[[5], [7, 3], [7, 5], [9, 3]])),
            ['kernel_sizes[0]', 'group_splits[0]'],
        ),
        (dict(arch=broken(kernel_sizes=[[4, 3], [7, 3], [7, 5], [9, 3]])), ['kernel_sizes', 'odd']),
        (dict(arch=broken(kernel_sizes=[3, 5, 7, 9])), ['kernel_sizes', 'each stage']),
        (dict(arch=broken(group_splits=[[1, 1], 2, 2, 4])), ['group_splits', 'each stage']),
        (dict(arch=broken(drop_path_rate='x')), ['arch.drop_path_rate', '[0, 1)']),
        (dict(out_indices=(0, 4)), ['out_indices', '[0, 1, 2, 3]']),
        (dict(out_indices=3), ['out_indices', '[0, 1, 2, 3]']),
        (dict(out_indices=None), ['out_indices', '[0, 1, 2, 3]']),
        (dict(out_indices=(0, 'a')), ['out_indices', '[0, 1, 2, 3]']),
        (dict(out_indices=(1.0, 2.0)), ['out_indices', '[0, 1, 2, 3]']),
        (dict(out_indices=(2, 1)), ['out_indices', 'increasing']),
        (dict(out_indices=()), ['out_indices']),
        (dict(frozen_stages=5), ['frozen_stages', '-1..4']),
        (dict(frozen_stages=1.0), ['frozen_stages', '-1..4']),
        (dict(drop_path_rate=1.0), ['drop_path_rate', '[0, 1)']),
        (dict(drop_path_rate='0.1'), ['drop_path_rate', '[0, 1)']),
        (dict(in_channels=0), ['in_channels', 'positive']),
        (dict(in_channels='3'), ['in_channels', 'positive']),
        (dict(norm_cfg='BN'), ['norm_cfg', "type='BN'"]),
        (dict(norm_cfg=dict(num_groups=8)), ['norm_cfg', "type='BN'"]),
        (dict(norm_cfg=dict(type='XX')), ['norm_cfg', "type='BN'"]),
        (dict(norm_cfg=dict(type='GN', num_groups=7)), ['norm_cfg', 'divisible by num_groups']),
        # It divides the channels of the first stage, but not those of the third.
        (dict(norm_cfg=dict(type='GN', num_groups=12)), ['norm_cfg', '24, 48, 96, 160 channels']),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ConfigError) as error:
        MODELS.build(dict(type='CloFormer', **arguments))
    for word in words:
        assert word in str(error.value)


def test_named_archs_pass_their_own_check():
    for arch in ARCHS.values():
        assert resolve_arch(arch._asdict()) == arch


@pytest.mark.parametrize(
    ('images', 'words'),
    [
        (torch.rand(3, 96, 128), ['(N, 3, H, W)', '(3, 96, 128)', 'image[None]']),
        (torch.rand(96, 128, 3), ['(N, 3, H, W)', '(96, 128, 3)']),
        (torch.rand(96, 128), ['(N, 3, H, W)', '(96, 128)']),
        (torch.rand(1, 1, 3, 96, 128), ['(N, 3, H, W)', '(1, 1, 3, 96, 128)']),
        ([torch.rand(3, 96, 128)], ['(N, 3, H, W)', 'list', 'torch.stack']),
        (torch.rand(1, 3, 96, 128).numpy(), ['(N, 3, H, W)', 'ndarray']),
        (torch.zeros(1, 3, 96, 128, dtype=torch.uint8), ['floating-point', 'uint8', 'float()']),
        (torch.zeros(1, 3, 96, 128, dtype=torch.long), ['floating-point', 'int64']),
        (torch.rand(1, 4, 96, 128), ['in_channels=4', 'color_type']),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, words):
    with pytest.raises(ConfigError) as error:
        tiny()(images)
    for word in words:
        assert word in str(error.value)
    assert ('in_channels' in str(error.value)) == ('in_channels=4' in words)
