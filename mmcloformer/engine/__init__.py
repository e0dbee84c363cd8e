"""Additions to training and testing: hooks, reseeding, layer-wise learning rates, resuming."""

from . import (
    checkpoint_hook,
    hooks,
    layer_decay,
    loading,
    reseeding,
    resume_hook,
    schedule_state,
    testing,
)

# Importing the modules registers their hooks and constructors.
__all__ = [
    'checkpoint_hook',
    'hooks',
    'layer_decay',
    'loading',
    'reseeding',
    'resume_hook',
    'schedule_state',
    'testing',
]
