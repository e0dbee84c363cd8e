"""Decides whether the stand-in for mmcv's compiled operators is needed, and where it goes."""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from .standin import NAME, is_stand_in, stand_in

# Modules that try to import one name of mmcv.ops and go on without it if that fails. A script may
# import them before mmcloformer.
_OPTIONAL_IMPORTS = {
    'mmcv.cnn.bricks.transformer': 'MultiScaleDeformableAttention',
    'mmdet.evaluation.metrics.dump_odvg_results': 'batched_nms',
    'mmdet.structures.mask.structures': 'roi_align',
    'mmseg.utils.mask_classification': 'point_sample',
}


def replacements() -> Iterator[tuple[str, Any]]:
    """Yield what lets mmcv, and the packages that import `mmcv.ops`, run without compiled ops.

    Yields nothing if mmcv has its compiled ops. The stand-in must be in place before the models of
    mmdet or mmseg are imported: without `mmcv.ops` these define placeholders, some of which cannot
    be replaced later. What other modules could not import is set afterwards.

    Warns:
        UserWarning: The models of a host were imported too early.
    """
    if not _is_needed():
        return
    early = _models_without_ops()
    module = stand_in()
    yield f'sys.modules[{NAME}]', module
    yield NAME, module
    for name in _OPTIONAL_IMPORTS.keys() & sys.modules.keys():
        attribute = _OPTIONAL_IMPORTS[name]
        yield f'{name}.{attribute}', getattr(importlib.import_module('mmcv.ops'), attribute)
    if early:
        warnings.warn(
            f'{" and ".join(early)} came before mmcloformer and found no mmcv.ops, so some of '
            'their layers, losses and NMS calls will fail: import mmcloformer first',
            # The line that imports mmcloformer, through apply_patches and Patch.apply.
            stacklevel=5,
        )


def _is_needed() -> bool:
    if NAME in sys.modules:
        return is_stand_in(sys.modules[NAME])
    return importlib.util.find_spec(NAME) is None


def _models_without_ops() -> list[str]:
    """Return the hosts whose models were imported, perhaps in part, without `mmcv.ops`."""
    if 'mmcv.ops' in sys.modules:
        return []
    # A failed import removes the package from sys.modules, but not its modules.
    return [
        models
        for models in ('mmdet.models', 'mmseg.models')
        if any(name.startswith(models) for name in sys.modules)
    ]
