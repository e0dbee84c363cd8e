from .archs import ARCHS, Arch, resolve_arch
from .cloformer import CloFormer

__all__ = ['ARCHS', 'Arch', 'CloFormer', 'resolve_arch']
