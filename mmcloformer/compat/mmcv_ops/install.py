"""Puts the stand-in for mmcv's compiled ops in its place."""

import importlib
import importlib.util
import sys
import warnings

from .standin import NAME, create, is_stand_in

# Modules that try one name of mmcv.ops when they are imported and do without it if that fails.
# An ordinary script may import these before it comes to mmcloformer.
_LEFT_WITHOUT = {
    'mmcv.cnn.bricks.transformer': 'MultiScaleDeformableAttention',
    'mmdet.evaluation.metrics.dump_odvg_results': 'batched_nms',
    'mmdet.structures.mask.structures': 'roi_align',
    'mmseg.utils.mask_classification': 'point_sample',
}


def install_mmcv_ops() -> bool:
    """Let mmcv, and the packages that import `mmcv.ops`, run without mmcv's compiled ops.

    A stand-in for the extension module `mmcv._ext` goes into `sys.modules`; nothing changes on
    disk. With a compiled mmcv, or none at all, this does nothing. Call it before mmdet's or
    mmseg's models are imported: they replace what they miss by stubs, some for good. What
    lighter modules have missed by then is restored.

    Returns:
        Whether the stand-in is in place, also from an earlier call.

    Warns:
        UserWarning: The models of a host were imported too early.
    """
    if NAME in sys.modules:
        return is_stand_in(sys.modules[NAME])
    package, _, attribute = NAME.rpartition('.')
    if importlib.util.find_spec(package) is None or importlib.util.find_spec(NAME) is not None:
        return False
    sys.modules[NAME] = create()
    setattr(sys.modules[package], attribute, sys.modules[NAME])
    _restore()
    _warn_if_late()
    return True


def _restore() -> None:
    for module in _LEFT_WITHOUT.keys() & sys.modules.keys():
        name = _LEFT_WITHOUT[module]
        setattr(sys.modules[module], name, getattr(importlib.import_module('mmcv.ops'), name))


def _warn_if_late() -> None:
    early = [models for models in ('mmdet.models', 'mmseg.models') if _partly_imported(models)]
    if early:
        warnings.warn(
            f'{" and ".join(early)} came before mmcloformer and found no mmcv.ops, so some of '
            'their layers, losses and NMS calls will fail: import mmcloformer first',
            stacklevel=3,
        )


def _partly_imported(package: str) -> bool:
    # A failed import takes the package out of sys.modules again, but not its modules.
    return any(name.startswith(package) for name in sys.modules)
