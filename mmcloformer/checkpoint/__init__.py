"""Reads checkpoints safely, compares them with a model, converts, saves and publishes them."""

from ..models.loading import get_state_dict
from .matching import check_whole_state, read_state_dict
from .reading import read_checkpoint

__all__ = ['check_whole_state', 'get_state_dict', 'read_checkpoint', 'read_state_dict']
