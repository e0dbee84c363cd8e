"""From a model to an ONNX file."""

import copy
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from onnxscript import opset18
from torch import nn

from ..models import CloFormer
from ..models.deploy import switch_to_deploy
from .detectors import RetinaNetGraph, TwoStageGraph
from .graphs import BackboneGraph, ClassifierGraph, ExportError, Graph, flatten_attention
from .segmentor import SegmentorGraph

# Opsets that can be written: the version of the file format and the lowest onnxruntime that has run
# the files. Opset 20 is the first with Gelu. onnxruntime 1.32 lacks RoiAlign of opset 22.
OPSETS = {18: (8, '1.15'), 19: (9, '1.16'), 20: (9, '1.17'), 21: (10, '1.18')}
DEFAULT_OPSET = 20
# The lowest torch on which the tests of the export have passed.
LOWEST_TORCH = '2.11'
# torch.export treats a map of height or width 1 as fixed. The largest stride is 128, in detectors.
_LEAST_EXAMPLE = 256
op: Any = opset18  # onnxscript types its operators for eager calls only.

# Maximum size of the attention scores that are computed at once. onnxruntime stores all scores:
# 4 MB stay in the cache of a core, while the 256 MB of the first stage at 800x1280 take three
# times as long.
_SCORE_BYTES = 4_000_000
# The optimiser of the exporter takes quadratic time in the number of nodes. 64 parts are what
# the first stage needs at 800x1280; larger images get larger parts.
_MAX_PARTS = 64


def make_graph(model: nn.Module, half: bool = False) -> Graph:
    """Copy a model into the graph that is exported, with its CloFormer in the deploy form.

    Args:
        model: A classifier of mmpretrain, a segmentor of mmseg, RetinaNet, Faster, Mask or Cascade
            R-CNN of mmdet, or a CloFormer alone; in evaluation mode and with its weights loaded.
        half: Use float16 weights and activations; norms and the steps after the heads stay in
            float32.

    Raises:
        ExportError: If the model is of another type.
        DeployError: If the model contains no CloFormer or is in training mode.
    """
    graph = _graph_class(model)(copy.deepcopy(model))
    switch_to_deploy(graph.model)
    flatten_attention(graph)
    # ExecuTorch takes weights in this layout only.
    graph.eval().to(memory_format=torch.contiguous_format)
    return _to_half(graph) if half else graph


def export_onnx(
    graph: Graph,
    path: str | Path,
    shape: tuple[int, int],
    dynamic: bool = False,
    metadata: Mapping[str, Any] | None = None,
    opset: int = DEFAULT_OPSET,
) -> None:
    """Write a graph to an ONNX file with the input `images` and the graph's outputs.

    Args:
        graph: Graph from `make_graph`.
        path: File to write.
        shape: Height and width of the input in pixels; with `dynamic`, of the example input, which
            is at least `_LEAST_EXAMPLE` high and wide.
        dynamic: Let height and width vary, and the batch size if the graph allows it.
        metadata: Entries for the file's `metadata_props`; each value is stored as JSON. The lowest
            `onnxruntime` that runs the file is added.
        opset: One of `OPSETS`.

    Raises:
        ExportError: If torch's exporter cannot export the model.
    """
    free = torch.export.Dim.DYNAMIC
    axes = {2: free, 3: free} | ({0: free} if graph.batched else {})
    # torch.export treats an axis of length 1 in the example as fixed.
    batch = 2 if dynamic and graph.batched else 1
    sides = [max(side, _LEAST_EXAMPLE) for side in shape] if dynamic else shape
    images = torch.zeros(batch, graph.in_channels, *sides)
    with torch.no_grad(), warnings.catch_warnings():
        # torchvision uses functions that torch has deprecated.
        warnings.simplefilter('ignore', FutureWarning)
        try:
            program = torch.onnx.export(
                graph,
                (images,),
                dynamo=True,
                opset_version=opset,
                input_names=['images'],
                output_names=list(graph.outputs),
                dynamic_shapes=(axes,) if dynamic else None,
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = str(error.__cause__ or error).strip().splitlines()[0]
            raise ExportError(
                f'torch {torch.__version__} failed to export this model: {cause}. The models of '
                f'docs/deploy.md need torch {LOWEST_TORCH} or newer'
            ) from error
    assert program is not None  # torch.onnx.export returns None only when given a file name.
    program.model.ir_version, lowest = OPSETS[opset]
    entries = dict(metadata or {}, onnxruntime=lowest)
    program.model.metadata_props.update({key: json.dumps(entries[key]) for key in entries})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    program.save(path)


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
    """Translate `scaled_dot_product_attention` to matrix products and a softmax.

    Where all sizes are known, the queries are split into at most `_MAX_PARTS` parts whose scores
    take about `_SCORE_BYTES`; otherwise all scores are computed at once.

    Args:
        query: `(N, heads, queries, d)`; the other arguments are those of PyTorch, of which masks,
            dropout and grouped queries are not supported.
        key: `(N, heads, keys, d)`.
        value: `(N, heads, keys, d)`.
    """
    assert (attn_mask, dropout_p, is_causal, enable_gqa) == (None, 0.0, False, False)
    *batch, queries, width = query.shape
    factor = op.CastLike(op.Constant(value_float=float(scale or width**-0.5)), key)
    keys = op.Transpose(op.Mul(key, factor), perm=[0, 1, 3, 2])
    sizes = [*batch, queries, key.shape[2]]
    count = 1
    if all(isinstance(size, int) for size in sizes):
        count = _count_parts(queries, torch.Size(sizes).numel() * 4)
    parts = op.Split(query, axis=2, num_outputs=count) if count > 1 else [query]
    outs = [op.MatMul(op.Softmax(op.MatMul(part, keys), axis=-1), value) for part in parts]
    return op.Concat(*outs, axis=2) if count > 1 else outs[0]


_GRAPHS: tuple[tuple[str, str, type[Graph]], ...] = (
    ('mmpretrain.models', 'ImageClassifier', ClassifierGraph),
    ('mmseg.models', 'EncoderDecoder', SegmentorGraph),
    ('mmdet.models', 'RetinaNet', RetinaNetGraph),
    ('mmdet.models', 'FasterRCNN', TwoStageGraph),
    ('mmdet.models', 'MaskRCNN', TwoStageGraph),
    ('mmdet.models', 'CascadeRCNN', TwoStageGraph),
)
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention
}


def _to_half(graph: Graph) -> Graph:
    """Convert to float16, except for the norms: some runtimes would add up a map in float16."""
    graph.half()
    for norm in graph.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.float()
            norm.register_forward_pre_hook(lambda _, inputs: inputs[0].float())
            norm.register_forward_hook(lambda _, __, out: out.half())
    return graph


def _count_parts(queries: int, score_bytes: int) -> int:
    """Return into how many parts to split the queries.

    Split makes every part `ceil(queries / count)` long and gives the last one what remains,
    which is empty or negative for some counts. The count is therefore computed from the length
    of a part.
    """
    wanted = min(queries, _MAX_PARTS, -(-score_bytes // _SCORE_BYTES))
    length = -(-queries // wanted)
    return -(-queries // length)


def _graph_class(model: nn.Module) -> type[Graph]:
    if isinstance(model, CloFormer):
        return BackboneGraph
    for module, name, graph in _GRAPHS:
        # The host of the model is imported, others need not be installed.
        kind = getattr(sys.modules.get(module), name, None)
        if kind and isinstance(model, kind):
            return graph
    raise ExportError(
        f'{type(model).__name__} cannot be exported; supported are CloFormer, '
        + ', '.join(f'{name} ({module.partition(".")[0]})' for module, name, _ in _GRAPHS)
    )
