"""Complexity of a model, curves of a training run, and views into the two branches."""
