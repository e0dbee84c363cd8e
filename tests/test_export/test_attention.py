import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcloformer.export.attention import TRANSLATIONS

FREE = torch.export.Dim.DYNAMIC


class Attention(nn.Module):
    def forward(self, query, key, value):
        return F.scaled_dot_product_attention(query, key, value)


@pytest.mark.parametrize(
    ('queries', 'dynamic', 'parts'), [(100, False, 1), (9001, False, 5), (9001, True, 1)]
)
def test_scores_in_parts(tmp_path, queries, dynamic, parts):
    """5 parts of 1801 queries or fewer, 2 heads and 256 keys: 3.7 MB at a time."""
    inputs = [torch.randn(1, 2, length, 16) for length in (queries, 256, 256)]
    program = torch.onnx.export(
        Attention().eval(),
        tuple(inputs),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({2: FREE}, {}, {}) if dynamic else None,
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    program.save(tmp_path / 'attention.onnx')
    nodes = onnx.load(tmp_path / 'attention.onnx').graph.node
    assert [node.op_type for node in nodes].count('Softmax') == parts
    session = onnxruntime.InferenceSession(tmp_path / 'attention.onnx')
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, {n: x.numpy() for n, x in zip(names, inputs)})
    torch.testing.assert_close(torch.from_numpy(found), Attention()(*inputs))
