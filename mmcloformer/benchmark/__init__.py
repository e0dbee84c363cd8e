"""What `tools/analysis_tools/benchmark.py` is made of."""
