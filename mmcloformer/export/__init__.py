"""From a config and a checkpoint to an ONNX file: what `export_onnx.py` is made of."""

from .graph import ExportError
from .onnx_file import export_onnx, make_graph

__all__ = ['ExportError', 'export_onnx', 'make_graph']
