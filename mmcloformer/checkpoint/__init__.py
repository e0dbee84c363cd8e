"""Reads checkpoint files safely, converts those of the released code, and publishes weights."""

from ..models.state_dict import get_state_dict
from .files import read_checkpoint

__all__ = ['get_state_dict', 'read_checkpoint']
