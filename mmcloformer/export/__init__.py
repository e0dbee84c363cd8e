"""From a config and a checkpoint to an ONNX file; `tools/predict_onnx.py` uses it."""

from .graph import ExportError
from .onnx_file import export_onnx, make_graph

__all__ = ['ExportError', 'export_onnx', 'make_graph']
