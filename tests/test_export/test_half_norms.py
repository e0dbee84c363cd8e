"""float16 in runtimes that add up in float16: why docs/deploy.md keeps the norms in float32."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from benchmarks.boards import prepare, snippets
from mmcloformer.export import export_onnx

pytestmark = pytest.mark.slow
SIZE = (320, 320)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Return the folder of the ONNX file of the package's classifier, an image and its result."""
    folder = tmp_path_factory.mktemp('half')
    model = prepare('classifier')['model']
    export_onnx(model, folder / 'cloformer.onnx', SIZE)
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        return folder, image.numpy(), model(image).numpy()


def run(model, image):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, dict(images=image))[0]


def test_file_with_norms_in_float32_agrees_with_pytorch(exported, monkeypatch):
    folder, image, expected = exported
    monkeypatch.chdir(folder)
    names = {}
    exec(snippets('TensorRT')[0], names)
    half = names['half']
    norms = [node for node in half.graph.node if node.op_type == 'InstanceNormalization']
    casts = {
        node.output[0]: node.attribute[0].i for node in half.graph.node if node.op_type == 'Cast'
    }
    assert {casts[node.input[0]] for node in norms} == {onnx.TensorProto.FLOAT}
    kinds = {tensor.data_type for tensor in half.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    np.testing.assert_allclose(run(half, image), expected, atol=5e-3)


@pytest.mark.parametrize('dtype', [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16])
def test_sums_of_norms_overflow_in_float16(exported, dtype):
    """Only the sums of the norms are rounded. Infinite variances make the norms' outputs zero."""
    folder, image, expected = exported
    model = onnx.load(folder / 'cloformer.onnx')
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.initializer.append(helper.make_tensor('axis', onnx.TensorProto.INT64, [1], [2]))
    for node in nodes:
        is_norm = node.op_type == 'InstanceNormalization'
        model.graph.node.extend(norm_by_sums(node, dtype) if is_norm else [node])
    worst = np.abs(run(model, image) - expected).max()
    assert worst > expected.max() / 2 if dtype == onnx.TensorProto.FLOAT16 else worst < 1e-4


def norm_by_sums(node, dtype):
    """Write a norm of `(1, 1, L)`, without weight and bias, as sums rounded to a dtype."""
    x, out = node.input[0], node.output[0]
    (epsilon,) = (each.f for each in node.attribute if each.name == 'epsilon')
    made = []

    def op(kind, *inputs, **settings):
        name = f'{out}_{len(made)}'
        made.append(helper.make_node(kind, inputs, [name], **settings))
        return name

    def mean(values):
        total = op('ReduceSum', values, 'axis')
        rounded = op('Cast', total, to=dtype)
        return op('Div', op('Cast', rounded, to=onnx.TensorProto.FLOAT), count)

    count = op('Cast', op('Size', x), to=onnx.TensorProto.FLOAT)
    centred = op('Sub', x, mean(x))
    variance = op('Add', mean(op('Mul', centred, centred)), op('Constant', value_float=epsilon))
    made.append(helper.make_node('Div', [centred, op('Sqrt', variance)], [out]))
    return made
