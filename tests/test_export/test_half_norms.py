"""Norms stay in float32 in files of float16, as some runtimes would add up in float16."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from benchmarks.boards import prepare
from mmcloformer.export import export_onnx, make_graph

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


@pytest.mark.parametrize('kind', ['classifier', 'detector'])
def test_norms_stay_in_float32(tiny, tmp_path, kind):
    export_onnx(make_graph(tiny(kind)[1], half=True), tmp_path / 'half.onnx', (64, 96))
    graph = onnx.load(tmp_path / 'half.onnx').graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    norms = [node for node in graph.node if node.op_type == 'InstanceNormalization']
    assert {types[node.input[0]] for node in norms} == {onnx.TensorProto.FLOAT}
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}


@pytest.mark.slow
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
    session = onnxruntime.InferenceSession(model.SerializeToString())
    worst = np.abs(session.run(None, dict(images=image))[0] - expected).max()
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
