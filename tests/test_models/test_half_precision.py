import pytest
import torch
from torch import nn

from mmcloformer import CloFormer
from mmcloformer.engine.testing import HalfPrecisionHook
from mmcloformer.errors import UserError
from mmcloformer.models import deploy
from mmcloformer.models.deploy import (
    DeployError,
    HalfPrecision,
    replace_backbones,
    require_dtype,
)

DTYPES = ('bfloat16', 'float16')


@pytest.fixture
def model():
    """A model with a CloFormer inside another part."""
    torch.manual_seed(0)
    backbone = CloFormer('xxs')
    backbone.init_weights()
    return nn.ModuleDict(
        dict(first=nn.ModuleDict(dict(backbone=backbone)), head=nn.Conv2d(1, 1, 1))
    )


@torch.no_grad()
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_maps_are_those_of_single_precision_up_to_rounding(model, dtype, layout):
    backbone = model['first']['backbone'].eval()
    image = torch.randn(2, 3, 96, 64).to(memory_format=layout)
    maps = HalfPrecision(backbone, dtype)(image)
    for ours, exact in zip(maps, backbone(image), strict=True):
        assert ours.dtype == torch.float32
        assert ours.is_contiguous(memory_format=layout)
        assert 1e-4 < (ours - exact).norm() / exact.norm() < 2e-2


def test_only_the_backbone_is_replaced_and_it_keeps_its_weights(model):
    backbone, head = model['first']['backbone'].train(), model['head']
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert replace_backbones(model, 'bfloat16') == {'first.backbone': backbone}
    assert isinstance(model['first']['backbone'], HalfPrecision)
    assert model['head'] is head
    assert head.weight.dtype == torch.float32
    assert backbone.training
    assert not backbone.deployed
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_a_model_without_cloformer_is_refused():
    with pytest.raises(DeployError, match='Conv2d holds no CloFormer to run in float16'):
        replace_backbones(nn.Conv2d(1, 1, 1), 'float16')


@pytest.mark.skipif(torch.cuda.is_available(), reason='asks the GPU')
@pytest.mark.parametrize(
    ('text', 'has'),
    [
        ('flags\t: fpu avx512f avx512_bf16 sse', True),
        ('flags\t: fpu amx_bf16 amx_tile', True),
        ('Features\t: fp asimd i8mm bf16 rng', True),
        ('flags\t: fpu avx512f avx2', False),
        (None, True),  # Not Linux: nothing is known.
    ],
)
def test_processors(text, has, tmp_path, monkeypatch):
    file = tmp_path / 'cpuinfo'
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(deploy, '_CPU_INFO', file)
    if has:
        require_dtype('bfloat16')
    else:
        with pytest.raises(
            UserError, match=r'this CPU has no units for bfloat16 .*--dtype float32'
        ):
            require_dtype('bfloat16')


@pytest.mark.skipif(torch.cuda.is_available(), reason='is for CPUs')
def test_float16_is_for_gpus():
    with pytest.raises(UserError, match=r'this CPU has no units for float16 .*--dtype float32'):
        require_dtype('float16')
    require_dtype('float32')


@pytest.mark.parametrize('dtype', DTYPES)
def test_a_test_has_the_copies_only_during_its_iterations(model, dtype):
    class Runner:
        pass

    runner, hook = Runner(), HalfPrecisionHook(dtype)
    runner.model = model
    backbone = model['first']['backbone']
    for scale in (1.0, 2.0):  # As EMAHook, other weights in a second test.
        with torch.no_grad():
            backbone.stages[0][0].norm1.bias.add_(scale)
        hook.before_test_epoch(runner)
        seen = []
        for batch in range(2):
            hook.before_test_iter(runner, batch)
            seen.append(model['first']['backbone'])
            hook.after_test_iter(runner, batch)
            assert model['first']['backbone'] is backbone
        assert isinstance(seen[0], HalfPrecision)
        assert seen[0] is seen[1]
        image = torch.ones(1, 3, 64, 64)
        with torch.no_grad():
            expected = HalfPrecision(backbone, dtype)(image)[0]
            torch.testing.assert_close(seen[0](image)[0], expected)
