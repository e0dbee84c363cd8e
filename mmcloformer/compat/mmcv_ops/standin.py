"""The module that takes the place of `mmcv._ext`."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ...errors import UserError

NAME = 'mmcv._ext'

# Each op, and the module of this package with the function of that name that serves it.
_SERVED = {
    'nms': 'nms',
    'softnms': 'nms',
    'roi_align_forward': 'roi_align',
    'roi_align_backward': 'roi_align',
    'sigmoid_focal_loss_forward': 'focal_loss',
    'sigmoid_focal_loss_backward': 'focal_loss',
    'deform_conv_forward': 'deform_conv',
    'deform_conv_backward_input': 'deform_conv',
    'deform_conv_backward_parameters': 'deform_conv',
    'modulated_deform_conv_forward': 'deform_conv',
    'modulated_deform_conv_backward': 'deform_conv',
    'ms_deform_attn_forward': 'ms_deform_attn',
    'ms_deform_attn_backward': 'ms_deform_attn',
}

_HELP = """{op!r} needs mmcv's compiled ops. This mmcv was installed without them, and mmcloformer \
stands in only for those that torchvision or plain torch can serve.
To have them all, build mmcv (about 40 minutes; torch, setuptools, wheel and a C++ compiler have \
to be there first; `mmcv==2.1.0` in place of `onedl-mmcv` on the upstream stack):
    MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall \
onedl-mmcv"""


class MissingOpError(UserError, NotImplementedError):
    """An op was called that only a compiled mmcv has."""


def create() -> ModuleType:
    """Make a stand-in; the caller puts it in its place.

    Returns:
        A module that has every op: those served here compute, any other raises `MissingOpError`
        when called. The kernels are imported at the first call of one of them.
    """
    loader = _StandInLoader()
    spec = ModuleSpec(NAME, loader, origin=__name__)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def missing(op: str) -> MissingOpError:
    """Make the error that names an op and says how to get it."""
    return MissingOpError(_HELP.format(op=op))


def is_stand_in(module: ModuleType) -> bool:
    """Tell a stand-in from a compiled extension."""
    return module.__spec__ is not None and isinstance(module.__spec__.loader, _StandInLoader)


class _StandInLoader(Loader):
    """Fills the module in; a spec without loader would pass for no ops in mmcv's own checks."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(
            __doc__="mmcloformer's stand-in for mmcv's compiled ops.",
            __getattr__=_find,
            get_compiler_version=_build,
            get_compiling_cuda_version=_build,
        )


def _find(op: str) -> Callable[..., Any]:
    # Everything that looks into modules asks for such names; none is an op.
    if op.startswith('_'):
        raise AttributeError(f'module {NAME!r} has no attribute {op!r}')
    return functools.partial(_call, op)


def _call(op: str, *args: Any, **kwargs: Any) -> Any:
    if op not in _SERVED:
        raise missing(op)
    kernels = importlib.import_module(f'.{_SERVED[op]}', __package__)
    return getattr(kernels, op)(*args, **kwargs)


def _build() -> str:
    return 'not compiled (torchvision stand-in)'
