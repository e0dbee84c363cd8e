import re

import pytest
import torch

from mmcloformer.checkpoint.convert import build_classifier
from mmcloformer.checkpoint.widen import widen_checkpoint
from mmcloformer.errors import CheckpointError, ConfigError
from mmcloformer.models import ARCHS, resolve_arch
from tests.archs import SEVERAL_BRANCHES

TINY = dict(
    embed_dims=(8, 16, 16, 24),
    depths=(2, 1, 1, 1),
    num_heads=(2, 2, 4, 3),
    group_splits=((1, 1), (2, 0), (0, 4), (1, 2)),
    kernel_sizes=((3,), (5,), (7,), (9,)),
)
LOCAL = dict(ARCHS['xs']._asdict(), group_splits=((3, 0), (6, 0), (10, 0), (22, 0)))


def multiply(arch, heads=1, head_dims=1):
    arch = resolve_arch(arch)
    return arch._replace(
        embed_dims=tuple(heads * head_dims * dims for dims in arch.embed_dims),
        num_heads=tuple(heads * n for n in arch.num_heads),
        group_splits=tuple(tuple(heads * n for n in split) for split in arch.group_splits),
    )._asdict()


def random_classifier(arch, in_channels=3, classes=5):
    """Return weights with every number drawn, those of the norms too."""
    stem = {'backbone.stem.conv1.0.weight': torch.zeros(1, in_channels, 3, 3)}
    model = build_classifier(stem | {'head.fc.bias': torch.zeros(classes)}, arch)
    weights = {}
    for key, value in model.state_dict().items():
        noise = torch.randn(value.shape) if value.is_floating_point() else value
        weights[key] = noise.abs() + 0.5 if key.endswith('running_var') else value + 0.3 * noise
    return weights


def run(weights, arch, images):
    model = build_classifier(weights, arch).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        return model['head']['fc'](model['backbone'](images)[0].mean((2, 3)))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize('factors', [dict(heads=2), dict(head_dims=3), dict(heads=2, head_dims=2)])
@pytest.mark.parametrize('arch', [TINY, SEVERAL_BRANCHES])
def test_channels_repeated_equally_often_keep_the_outputs(monkeypatch, arch, factors):
    arch = resolve_arch(arch)._asdict()
    # Shapes do not determine the heads of an arch of one's own.
    monkeypatch.setattr('mmcloformer.checkpoint.convert.infer_arch', lambda weights: arch)
    weights, wide = random_classifier(arch, in_channels=1), multiply(arch, **factors)
    images = torch.randn(2, 1, 45, 70)
    checkpoint = widen_checkpoint(weights, wide)
    expected = run(weights, arch, images)
    torch.testing.assert_close(run(checkpoint['state_dict'], wide, images), expected)
    assert checkpoint['meta'] == dict(arch=wide, num_classes=5)


def test_copies_learn_different_things():
    weights = random_classifier('xxs')
    widened = widen_checkpoint(weights, 'xs')['state_dict']
    model = build_classifier(widened, 'xs')
    model.load_state_dict(widened)
    features = model['backbone'](torch.randn(2, 3, 64, 64))[0].mean((2, 3))
    model['head']['fc'](features).logsumexp(1).sum().backward()
    hidden = model['backbone'].stages[0][0].ffn.fc1.weight.grad
    assert (hidden[:64] - hidden[128:]).norm() > 0.1 * hidden[:64].norm()


@pytest.mark.parametrize(('narrow', 'wide'), [('xxs', 'xs'), ('xs', 's')])
def test_published_variants_stay_close(narrow, wide):
    """Closer than half of what the outputs vary by between images."""
    weights, images = random_classifier(narrow), torch.randn(8, 3, 64, 64)
    expected = run(weights, narrow, images)
    difference = run(widen_checkpoint(weights, wide)['state_dict'], wide, images) - expected
    assert difference.std() < 0.5 * (expected - expected.mean(0)).std()


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        (LOCAL, 'stage 0 of arch has 0 heads in the global branch, the weights have 1'),
        ('xxs', 'stage 0 of arch has 32 channels, the weights have 48'),
        (dict(ARCHS['s']._asdict(), depths=(2, 2, 6, 3)), 'arch.depths is (2, 2, 6, 3), in the'),
        (dict(ARCHS['s']._asdict(), kernel_sizes=[[3]] * 4), 'arch.kernel_sizes is ((3,), (3,)'),
    ],
)
def test_an_arch_that_is_not_wider_is_refused(arch, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        widen_checkpoint(random_classifier('xs'), arch)


def test_unknown_arch_and_incomplete_weights_are_refused():
    weights = random_classifier('xxs')
    with pytest.raises(ConfigError, match="arch='m' is unknown"):
        widen_checkpoint(weights, 'm')
    del weights['head.fc.weight']
    with pytest.raises(CheckpointError, match=r'1 missing: head\.fc\.weight'):
        widen_checkpoint(weights, 'xs')
