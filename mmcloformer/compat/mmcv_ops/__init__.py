"""mmcv's operators without compiling mmcv: a stand-in for its extension module `mmcv._ext`."""

from .install import install_mmcv_ops
from .standin import MissingOpError

__all__ = ['MissingOpError', 'install_mmcv_ops']
