"""mmcv's operators without compiling mmcv: a stand-in for its extension module `mmcv._ext`."""

from .standin import MissingOpError

__all__ = ['MissingOpError']
