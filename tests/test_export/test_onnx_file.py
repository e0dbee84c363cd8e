"""Attention in the exported file, and whole files at large sizes."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcloformer.export import export_onnx, make_graph
from mmcloformer.export.onnx_file import _MAX_PARTS, _SCORE_BYTES, TRANSLATIONS, _count_parts
from mmcloformer.models import CloFormer
from mmcloformer.models.archs import ARCHS
from mmcloformer.models.cloformer import POOL_WINDOWS, STRIDES

FREE = torch.export.Dim.DYNAMIC
STAGES = list(zip(STRIDES, POOL_WINDOWS))


class Attention(nn.Module):
    def forward(self, query, key, value):
        return F.scaled_dot_product_attention(query, key, value)


def export_attention(inputs, path, dynamic=False):
    program = torch.onnx.export(
        Attention().eval(),
        tuple(inputs),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({2: FREE}, {}, {}) if dynamic else None,
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    program.save(path)


def run_file(path, inputs):
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: x.numpy() for name, x in zip(names, inputs)})


@pytest.mark.parametrize(
    ('queries', 'dynamic', 'parts'), [(100, False, 1), (9001, False, 5), (9001, True, 1)]
)
def test_attention_is_computed_in_parts(tmp_path, queries, dynamic, parts):
    """5 parts of at most 1801 queries, with 2 heads and 256 keys: 3.7 MB of scores each."""
    inputs = [torch.randn(1, 2, length, 16) for length in (queries, 256, 256)]
    path = tmp_path / 'attention.onnx'
    export_attention(inputs, path, dynamic)
    nodes = onnx.load(path).graph.node
    assert [node.op_type for node in nodes].count('Softmax') == parts
    (found,) = run_file(path, inputs)
    torch.testing.assert_close(torch.from_numpy(found), Attention()(*inputs))


def attention_size(height, width, stage):
    """Return the number of queries and keys of a stage for an image of this size."""
    stride, window = STAGES[stage]
    rows, columns = -(-height // stride), -(-width // stride)
    return rows * columns, -(-rows // window) * -(-columns // window)


@settings(deadline=None, max_examples=500)
@given(
    height=st.integers(1, 4320),
    width=st.integers(1, 7680),
    stage=st.integers(0, 3),
    heads=st.integers(1, 22),
    batch=st.integers(1, 64),
)
def test_no_part_of_the_queries_is_empty(height, width, stage, heads, batch):
    """Split makes parts of `ceil(queries / count)` and gives the last part what remains."""
    queries, keys = attention_size(height, width, stage)
    bytes_per_query = 4 * batch * heads * keys
    count = _count_parts(queries, queries * bytes_per_query)
    length = -(-queries // count)
    assert 0 < queries - length * (count - 1) <= length
    assert 1 <= count <= _MAX_PARTS
    if queries * bytes_per_query <= _SCORE_BYTES * _MAX_PARTS:
        assert length * bytes_per_query <= _SCORE_BYTES + bytes_per_query


@pytest.mark.parametrize(('height', 'width', 'stage'), [(32, 32, 3), (1600, 1600, 0)])
def test_attention_of_a_stage_loads(tmp_path, height, width, stage):
    check_attention(tmp_path / 'attention.onnx', height, width, stage, 1)


@pytest.mark.slow
@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    height=st.integers(32, 2176),
    width=st.integers(32, 2176),
    stage=st.integers(0, 3),
    batch=st.integers(1, 4),
)
def test_attention_loads_at_any_size(tmp_path_factory, height, width, stage, batch):
    check_attention(tmp_path_factory.mktemp('attention') / 'a.onnx', height, width, stage, batch)


def check_attention(path, height, width, stage, batch):
    """Export the attention of a stage of xs, load the file, and compare if it is cheap."""
    arch = ARCHS['xs']
    heads = arch.group_splits[stage][-1]
    dims = arch.embed_dims[stage] // arch.num_heads[stage]
    queries, keys = attention_size(height, width, stage)
    inputs = [torch.randn(batch, heads, length, dims) for length in (queries, keys, keys)]
    export_attention(inputs, path)
    if batch * heads * queries * keys <= 5e7:
        (found,) = run_file(path, inputs)
        torch.testing.assert_close(torch.from_numpy(found), Attention()(*inputs))
    else:
        onnxruntime.InferenceSession(path)


@pytest.mark.nightly
@pytest.mark.parametrize('size', [(1080, 1920), (1600, 1600), (2160, 3840)])
def test_backbone_at_large_sizes(tmp_path, size):
    torch.manual_seed(0)
    graph = make_graph(CloFormer('xs').eval())
    export_onnx(graph, tmp_path / 'backbone.onnx', size)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = graph(images)
    session = onnxruntime.InferenceSession(tmp_path / 'backbone.onnx')
    found = session.run(None, {'images': images.numpy()})
    for a, b in zip(expected, found, strict=True):
        # onnxruntime adds up the norms of large maps in float32, which costs 0.1 % at 2160x3840.
        np.testing.assert_allclose(b, a.numpy(), rtol=2e-3, atol=2e-3)
