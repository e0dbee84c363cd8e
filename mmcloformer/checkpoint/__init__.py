from .matching import (
    check_backbone_state,
    check_whole_state,
    get_state_dict,
    load_pretrained,
    read_state_dict,
)
from .reading import read_checkpoint, register_safe_loading

__all__ = [
    'check_backbone_state',
    'check_whole_state',
    'get_state_dict',
    'load_pretrained',
    'read_checkpoint',
    'read_state_dict',
    'register_safe_loading',
]
