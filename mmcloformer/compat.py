"""Every mend of the host packages, in one place; each is applied when mmcloformer is imported
and changes nothing on disk."""

from importlib.metadata import PackageNotFoundError, distribution

from mmengine.config import utils as config_utils

from .checkpoint.reading import register_safe_loading
from .ops import install_mmcv_ops


def apply_mends() -> None:
    """Apply all mends; doing so again changes nothing."""
    install_mmcv_ops()
    name_mmseg()
    register_safe_loading()


def name_mmseg() -> None:
    """Let `_base_ = 'mmseg::...'` find mmsegmentation as the maintained fork installs it.

    mmengine looks the configs up by the distribution's name, `mmsegmentation`, which the fork
    publishes under another one; by the module's name they are found.
    """
    try:
        distribution('mmsegmentation')
    except PackageNotFoundError:
        config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'
