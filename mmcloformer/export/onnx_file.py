"""Writing the file."""

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..models import CloFormer
from ..models.deploy import switch_to_deploy
from .attention import TRANSLATIONS
from .backbone import BackboneGraph
from .classifier import ClassifierGraph
from .detector import DetectorGraph
from .graph import ExportError, Graph
from .mask_rcnn import MaskRCNNGraph
from .segmentor import SegmentorGraph

# The first with Gelu. From 23 on attention is one operator, which onnxruntime 1.32 spreads over
# heads alone: on two threads it takes twice as long as the products spelled out.
OPSET = 20


def make_graph(model: nn.Module, half: bool = False) -> Graph:
    """Copy a host's model into the form that is exported, with its CloFormer in deploy form.

    Args:
        model: A classifier of mmpretrain, a segmentor of mmseg, RetinaNet or Mask R-CNN of mmdet,
            or a backbone by itself; in evaluation mode, with its weights loaded.
        half: Weights and activations in float16; what comes after the heads stays in float32.

    Raises:
        ExportError: If it is none of these.
        DeployError: If there is no CloFormer in it, or it is in training mode.
    """
    graph = _graph_class(model)(copy.deepcopy(model))
    switch_to_deploy(graph.model)
    graph.eval()
    return graph.half() if half else graph


def export_onnx(
    graph: Graph,
    path: str | Path,
    shape: tuple[int, int],
    dynamic: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a graph as an ONNX file with the input `images` and the graph's outputs.

    Args:
        graph: What `make_graph` returned.
        path: File to write.
        shape: Height and width of the input in pixels; under `dynamic` that of the example.
        dynamic: Let height and width be free, and the batch if the graph allows.
        metadata: Goes into the file's `metadata_props`, each value as JSON.
    """
    free = torch.export.Dim.DYNAMIC
    axes = {2: free, 3: free} | ({0: free} if graph.batched else {})
    # A free axis that is 1 in the example would be taken for fixed.
    images = torch.zeros(2 if dynamic and graph.batched else 1, 3, *shape)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)  # Of torch and torchvision at each other.
        program = torch.onnx.export(
            graph,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=['images'],
            output_names=list(graph.outputs),
            dynamic_shapes=(axes,) if dynamic else None,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None  # Without a file name the program is returned.
    program.model.metadata_props.update(
        {key: json.dumps(value) for key, value in (metadata or {}).items()}
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    program.save(path)


def _graph_class(model: Any) -> type[Graph]:
    if isinstance(model, CloFormer):
        return BackboneGraph
    # By name, so that the other hosts need not be imported.
    bases = {f'{base.__module__.split(".")[0]}.{base.__name__}' for base in type(model).__mro__}
    if 'mmpretrain.ImageClassifier' in bases:
        return ClassifierGraph
    if 'mmseg.EncoderDecoder' in bases:
        return SegmentorGraph
    if 'mmdet.RetinaNet' in bases:
        return DetectorGraph
    if 'mmdet.MaskRCNN' in bases:
        return MaskRCNNGraph
    raise ExportError(
        f'{type(model).__name__} cannot be exported: only classifiers, whole-image segmentors, '
        'RetinaNet and Mask R-CNN can'
    )
