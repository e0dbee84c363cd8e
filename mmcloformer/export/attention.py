"""How attention is written into an ONNX graph."""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20

op: Any = opset20  # Its types are those of eager calls.

# Scores that are at hand at once. onnxruntime writes them out; of 4 MB they stay in the cache of
# a core, while those of the first stage at 800x1280 take 256 MB and three times as long.
_SCORE_BYTES = 4e6


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Translate `scaled_dot_product_attention` without a mask to products and a softmax, over so
    many queries at a time that their scores are few; where a size is free, over all."""
    assert (attn_mask, dropout_p, is_causal, enable_gqa) == (None, 0.0, False, False)
    *batch, queries, width = query.shape
    factor = op.CastLike(op.Constant(value_float=float(scale or width**-0.5)), key)
    keys = op.Transpose(op.Mul(key, factor), perm=[0, 1, 3, 2])
    sizes = [*batch, queries, key.shape[2]]
    count = 1
    if all(isinstance(size, int) for size in sizes):
        count = min(queries, -(-torch.Size(sizes).numel() * 4 // int(_SCORE_BYTES)))
    parts = op.Split(query, axis=2, num_outputs=count) if count > 1 else [query]
    outs = [op.MatMul(op.Softmax(op.MatMul(part, keys), axis=-1), value) for part in parts]
    return op.Concat(*outs, axis=2) if count > 1 else outs[0]


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention
}
