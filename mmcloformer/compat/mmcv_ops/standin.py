"""The module that takes the place of `mmcv._ext`, and what its kernels share."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError

NAME = 'mmcv._ext'

# Module of this package -> the ops that it has a function for.
_MODULES = {
    'nms': 'nms softnms',
    'roi_align': 'roi_align_forward roi_align_backward',
    'focal_loss': 'sigmoid_focal_loss_forward sigmoid_focal_loss_backward',
    'deform_conv': 'deform_conv_forward deform_conv_backward_input '
    'deform_conv_backward_parameters modulated_deform_conv_forward modulated_deform_conv_backward',
    'ms_deform_attn': 'ms_deform_attn_forward ms_deform_attn_backward',
    'bbox': 'bbox_overlaps',
}
_SUPPORTED = {op: module for module, ops in _MODULES.items() for op in ops.split()}

_HELP = """{op!r} needs mmcv's compiled ops. This mmcv was installed without them, and mmcloformer \
replaces only those that torchvision or plain torch can compute.
To have all ops, build mmcv (about 40 minutes; install torch, setuptools, wheel and a C++ compiler \
first; on the upstream stack write `mmcv==2.1.0` instead of `onedl-mmcv`):
    MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall \
onedl-mmcv"""


class MissingOpError(UserError, NotImplementedError):
    """An op was called that only a compiled mmcv has."""


@functools.cache
def stand_in() -> ModuleType:
    """Return the stand-in; the caller puts it in place of `mmcv._ext`.

    Returns:
        A module that has every op. Supported ops compute, any other raises `MissingOpError` when
        it is called. The kernels are imported at the first call.
    """
    loader = _StandInLoader()
    spec = ModuleSpec(NAME, loader, origin=__name__)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def is_stand_in(module: ModuleType) -> bool:
    """Return whether a module is the stand-in rather than a compiled extension."""
    return module.__spec__ is not None and isinstance(module.__spec__.loader, _StandInLoader)


def missing_op(op: str) -> MissingOpError:
    """Return the error that names an op and the way to install it."""
    return MissingOpError(_HELP.format(op=op))


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert tensors to one floating-point type: the widest among them and float32.

    Mixed precision training passes tensors of different types, which torchvision's kernels refuse,
    and bfloat16, which they do not support.
    """
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)


class _StandInLoader(Loader):
    """Fills the module; mmcv's own checks take a spec without a loader for a missing module."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(
            __doc__="mmcloformer's stand-in for mmcv's compiled ops.",
            __getattr__=_get_op,
            get_compiler_version=_compiler_version,
            get_compiling_cuda_version=_compiler_version,
        )


def _get_op(op: str) -> Callable[..., Any]:
    # Code that inspects modules asks for such names; none of them is an op.
    if op.startswith('_'):
        raise AttributeError(f'module {NAME!r} has no attribute {op!r}')
    return functools.partial(_call, op)


def _call(op: str, *args: Any, **kwargs: Any) -> Any:
    if op not in _SUPPORTED:
        raise missing_op(op)
    kernels = importlib.import_module(f'.{_SUPPORTED[op]}', __package__)
    return getattr(kernels, op)(*args, **kwargs)


def _compiler_version() -> str:
    return 'not compiled (torchvision stand-in)'
