"""torch.compile takes the backbone as one graph, in both forms, for inference and for training."""

import copy
import shutil

import pytest
import torch

from mmcloformer import CloFormer
from tests.archs import SEVERAL_BRANCHES, randomized


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_inference_is_one_graph(deploy, memory_format):
    backbone = randomized().to(memory_format=memory_format)
    if deploy:
        backbone.switch_to_deploy()
    image = torch.randn(2, 3, 65, 97).to(memory_format=memory_format)
    with torch.no_grad():
        explained = torch._dynamo.explain(backbone)(image)
        assert (explained.graph_count, explained.graph_break_count) == (1, 0)
        compiled = torch.compile(backbone, backend='aot_eager', fullgraph=True)
        for out, expected in zip(compiled(image), backbone(image)):
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('with_cp', [False, True])
def test_training_is_one_graph(with_cp):
    image = torch.randn(2, 3, 65, 97)
    plain = CloFormer(SEVERAL_BRANCHES, drop_path_rate=0.0, with_cp=with_cp)
    compiled = copy.deepcopy(plain)
    for model in (plain, torch.compile(compiled, backend='aot_eager', fullgraph=True)):
        sum(out.square().sum() for out in model(image)).backward()
    for (name, parameter), expected in zip(compiled.named_parameters(), plain.parameters()):
        error = (parameter.grad - expected.grad).norm()
        assert error < 1e-4 * expected.grad.norm() + 1e-2, name
    for a, b in zip(compiled.buffers(), plain.buffers()):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='inductor needs a C++ compiler')
def test_inductor_computes_the_same():
    backbone = randomized()
    backbone.switch_to_deploy()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        compiled = torch.compile(backbone, fullgraph=True)
        for out, expected in zip(compiled(image), backbone(image)):
            assert (out - expected).abs().max() < 1e-5 * expected.abs().max()
