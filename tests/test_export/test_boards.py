"""The snippets of docs/deploy.md that convert a model for phones and boards."""

import numpy as np
import pytest
import torch

from benchmarks.boards import prepare, snippets
from mmcloformer.export.graphs import flatten_attention
from mmcloformer.models import CloFormer

# The package of each runtime, and the largest difference relative to the largest output: OpenVINO
# and ncnn store weights in float16. Core ML runs on Apple's systems only.
RUNTIMES = {
    'OpenVINO': ('openvino', 3e-3),
    'ncnn': ('ncnn', 5e-3),
    'ExecuTorch': ('executorch', 1e-4),
    'Core ML': ('coremltools', None),
    'LiteRT': ('litert_torch', 1e-4),
}


def test_attention_of_the_export_equals_that_of_the_backbone():
    model, images = CloFormer('xxs').eval(), torch.randn(2, 3, 72, 104)
    with torch.no_grad():
        expected = model(images)
        flatten_attention(model)
        torch.testing.assert_close(model(images), expected)


@pytest.fixture(
    scope='module', params=['classifier', pytest.param('detector', marks=pytest.mark.nightly)]
)
def converted(request):
    """Return the variables that a snippet continues: the model and images for it."""
    return prepare(request.param)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # The converters use functions that torch has deprecated.
@pytest.mark.parametrize('runtime', RUNTIMES)
def test_a_runtime_gives_the_outputs_of_pytorch(converted, runtime, tmp_path, monkeypatch):
    package, tolerance = RUNTIMES[runtime]
    pytest.importorskip(package, exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    (code,) = snippets(runtime)
    names = dict(converted)
    with torch.no_grad():
        exec(code, names)
        expected = names['model'](names['images'])
        expected = [expected] if isinstance(expected, torch.Tensor) else expected
        if runtime == 'Core ML':
            outputs = names['converted'].get_spec().description.output
            assert len(outputs) == len(expected)
            return
        found = names['run'](names['images'])
    assert len(found) == len(expected)
    for value, reference in zip(found, expected):
        limit = tolerance * reference.abs().max().item()
        np.testing.assert_allclose(value, reference.numpy(), rtol=0, atol=limit)
