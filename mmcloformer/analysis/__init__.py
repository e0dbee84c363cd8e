"""Complexity of a model, and curves of a training run."""
