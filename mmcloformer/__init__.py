"""CloFormer for detection, segmentation and classification with the OpenMMLab packages.

Importing this package changes the process in two ways. It registers `CloFormer`, the hooks and the
optimizer constructor in mmengine's root registries, where mmdet, mmseg and mmpretrain find them.
And it applies the patches of `mmcloformer.compat.PATCHES` to mmengine and mmcv: mmcv's operators
work without its compiled extension, `_base_ = 'mmseg::...'` and `_base_ = 'mmcloformer::...'` find
their configs, `mmcloformer://NAME` loads weights of this package, and every checkpoint that
mmengine loads is read without running code from it. `mmcloformer.compat.undo_patches()` undoes
them all; the environment variable `MMCLOFORMER_SAFE_LOADING=0` leaves out the last one
(docs/security.md). Nothing changes on disk.
"""

try:
    import mmcv  # noqa: F401
    import mmengine  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ('mmcv', 'mmengine'):
        raise  # They are installed, and need something else.
    raise ImportError(
        'mmcloformer needs one of the two OpenMMLab stacks: '
        "pip install 'mmcloformer[onedl]' for the maintained fork, or "
        "pip install 'mmcloformer[openmmlab]' for the upstream releases"
    ) from error

from .compat.patches import apply_patches

apply_patches()

from .engine.checkpoint_keys import WholeCheckpointHook  # noqa: E402
from .engine.hooks import ReseedHook  # noqa: E402
from .engine.layer_decay import LayerDecayOptimWrapperConstructor  # noqa: E402
from .models import CloFormer  # noqa: E402

__version__ = '0.1.0'
__all__ = [
    'CloFormer',
    'LayerDecayOptimWrapperConstructor',
    'ReseedHook',
    'WholeCheckpointHook',
    '__version__',
]
