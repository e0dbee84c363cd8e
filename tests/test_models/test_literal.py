"""Ours against the literal reading of the paper, and that against the released outputs."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.literal import LiteralCloFormer
from mmcloformer import CloFormer
from mmcloformer.checkpoint.convert import convert_checkpoint
from mmcloformer.models import inference
from tests import released
from tests.archs import SEVERAL_BRANCHES


def pair(arch):
    torch.manual_seed(0)
    ours, literal = CloFormer(arch, drop_path_rate=0.0), LiteralCloFormer(arch)
    literal.load_state_dict(ours.state_dict())
    return ours, literal


@pytest.mark.parametrize('reference', released.ARCHS)
def test_literal_computes_what_the_released_code_does(reference):
    literal = LiteralCloFormer(released.ARCHS[reference]).eval()
    converted = convert_checkpoint(released.state_dict(reference))['state_dict']
    weights = {k.removeprefix('backbone.'): v for k, v in converted.items() if 'head' not in k}
    result = literal.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    assert {key.split('.')[0] for key in result.missing_keys} == {'norm0', 'norm1', 'norm2'}
    expected = released.outputs(reference)
    size = next(key.split('/')[0] for key in expected if key[0].isdigit())
    image = released.normal(0, len(expected[f'{size}/logits']), 3, *map(int, size.split('x')))
    with torch.no_grad():
        maps = literal(image)
    for stage, ours in enumerate(maps):
        norm = literal.get_submodule(f'norm{stage}')
        before = torch.from_numpy(expected[f'{size}/stage{stage}'])
        theirs = F.group_norm(before, 1, norm.weight.detach(), norm.bias.detach())
        assert (ours - theirs).abs().max() < 2e-5 * theirs.abs().max()


@pytest.mark.parametrize('size', [(64, 96), (1, 1), (7, 70), (33, 65)])
@pytest.mark.parametrize('arch', ['xxs', SEVERAL_BRANCHES])
def test_same_outputs_at_any_size(arch, size):
    ours, literal = pair(arch)
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        for out, expected in zip(ours.eval()(image), literal.eval()(image)):
            assert (out - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize('strip_bytes', [1, 20_000, 60_000])
@pytest.mark.parametrize('size', [(130, 65), (129, 96), (31, 200)])
def test_same_outputs_in_strips(monkeypatch, strip_bytes, size):
    monkeypatch.setattr(inference, 'MAX_HIDDEN_BYTES', strip_bytes)
    ours, literal = pair(SEVERAL_BRANCHES)
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        for out, expected in zip(ours.eval()(image), literal.eval()(image)):
            assert (out - expected).abs().max() < 1e-5 * expected.abs().max()


def test_same_gradients():
    ours, literal = pair(SEVERAL_BRANCHES)
    image = torch.randn(2, 3, 65, 97)
    weights = [torch.randn_like(out) for out in literal.eval()(image)]
    for model in (ours, literal):
        model.train()
        sum((out * w).sum() for out, w in zip(model(image), weights)).backward()
    scale = max(p.grad.norm() for p in literal.parameters())
    for (name, parameter), expected in zip(ours.named_parameters(), literal.parameters()):
        error = (parameter.grad - expected.grad).norm()
        assert error < 1e-4 * expected.grad.norm() + 1e-6 * scale, name
    for a, b in zip(ours.buffers(), literal.buffers()):
        torch.testing.assert_close(a, b)
