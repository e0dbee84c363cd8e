"""Everything that changes a host package: the list of patches, and mmcv's operators."""

from .patch import Patch
from .patches import PATCHES, apply_patches, undo_patches

__all__ = ['PATCHES', 'Patch', 'apply_patches', 'undo_patches']
