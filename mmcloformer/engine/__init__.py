"""Additions to training and testing: hooks, layer-wise learning rates, saving, resuming."""

from . import checkpoint_keys, hooks, layer_decay, pictures, resuming, saving, testing

# Importing the modules registers their hooks and constructors.
__all__ = ['checkpoint_keys', 'hooks', 'layer_decay', 'pictures', 'resuming', 'saving', 'testing']
