"""CloFormer for detection, segmentation and classification with the OpenMMLab packages.

Importing this registers the backbone in mmengine's root registry, where mmdet, mmseg and
mmpretrain all find it, and applies the mends of `mmcloformer.compat`.
"""

try:
    import mmcv  # noqa: F401
    import mmengine  # noqa: F401
except ImportError as error:
    raise ImportError(
        'mmcloformer needs one of the two OpenMMLab stacks beside it: '
        "pip install 'mmcloformer[onedl]' for the maintained fork, or "
        "pip install 'mmcloformer[openmmlab]' for the upstream releases"
    ) from error

from .compat.patches import apply_mends

apply_mends()

from .engine.layer_decay import LayerDecayOptimWrapperConstructor  # noqa: E402
from .engine.loading import WholeCheckpointHook  # noqa: E402
from .engine.reseeding import ReseedHook  # noqa: E402
from .models import CloFormer  # noqa: E402

__version__ = '0.1.0'
__all__ = [
    'CloFormer',
    'LayerDecayOptimWrapperConstructor',
    'ReseedHook',
    'WholeCheckpointHook',
    '__version__',
]
