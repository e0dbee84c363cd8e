"""Every mend of the host packages, in one place; each is applied when mmcloformer is imported
and changes nothing on disk."""

from importlib.metadata import PackageNotFoundError, distribution

from mmengine.config import config
from mmengine.config import utils as config_utils
from mmengine.hub import hub

from ..checkpoint.reading import register_safe_loading
from ..checkpoint.shipped import register_shipped_weights
from .mmcv_ops import install_mmcv_ops


def apply_mends() -> None:
    """Apply all mends; doing so again changes nothing."""
    install_mmcv_ops()
    name_mmseg()
    name_mmcloformer()
    register_safe_loading()
    register_shipped_weights()


def name_mmseg() -> None:
    """Let `_base_ = 'mmseg::...'` find mmsegmentation as the maintained fork installs it.

    mmengine looks the configs up by the distribution's name, `mmsegmentation`, which the fork
    publishes under another one; by the module's name they are found.
    """
    try:
        distribution('mmsegmentation')
    except PackageNotFoundError:
        config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'


def name_mmcloformer() -> None:
    """Let `_base_ = 'mmcloformer::NAME.py'` find the configs that are installed with this
    package; mmengine knows its own family's names only, and only configs in folders."""
    config_utils.MODULE2PACKAGE['mmcloformer'] = 'mmcloformer'
    for module in (config, hub):
        module._get_package_and_cfg_path = _split_config_path


def _split_config_path(path: str) -> tuple[str, str]:
    package, _, name = path.partition('::')
    if package == 'mmcloformer':
        return package, name
    return config_utils._get_package_and_cfg_path(path)
