"""Export of trained models to ONNX, and comparison of the file with PyTorch."""

from .graphs import ExportError
from .onnx_file import export_onnx, make_graph

__all__ = ['ExportError', 'export_onnx', 'make_graph']
