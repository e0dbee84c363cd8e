"""Additions to training: hooks, reseeding, layer-wise learning rates, checkpoints, resuming."""
