"""Measured results, and the code of `tools/analysis_tools/benchmark.py`, which measures them."""
