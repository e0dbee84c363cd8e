"""All monkeypatches that mmcloformer applies to mmengine and mmcv."""

import os
import pkgutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from mmengine.config import utils as config_utils

from ..checkpoint import shipped
from . import checkpoint_loaders as loaders
from .mmcv_ops import install
from .patch import Patch
from .whole_files import BACKEND, WholeFilesBackend

_CHECKPOINT = 'mmengine.runner.checkpoint'
_SCHEMES = f'{_CHECKPOINT}.CheckpointLoader._schemes'

_split_config_path = config_utils._get_package_and_cfg_path


def _mmseg_name() -> Iterator[tuple[str, Any]]:
    try:
        distribution('mmsegmentation')
    except PackageNotFoundError:
        yield 'mmengine.config.utils.MODULE2PACKAGE[mmseg]', 'mmseg'


def _split_config_path_or_ours(path: str) -> tuple[str, str]:
    package, _, name = path.partition('::')
    if package == 'mmcloformer':
        return package, name
    return _split_config_path(path)


_LOADERS = (
    f'{_SCHEMES}[]',
    f'{_SCHEMES}[http://]',
    f'{_SCHEMES}[https://]',
    rf'{_SCHEMES}[(\S+\:)?s3://]',
    rf'{_SCHEMES}[(\S+\:)?petrel://]',
    # `torchvision://`, `open-mmlab://` and `mmcls://` look up a URL and call this function.
    f'{_CHECKPOINT}.load_from_http',
    # The maintained fork's other loaders call this one; upstream has none of this name.
    f'{_CHECKPOINT}._safe_torch_load',
)
_SAFE_LOADERS = {
    **dict.fromkeys(_LOADERS, loaders.load_from_mmcloformer),
    **{
        name: loaders.while_resuming(pkgutil.resolve_name(name))
        for name in (
            'mmengine.runner.runner.Runner.resume',
            'mmengine._strategy.single_device.SingleDeviceStrategy.resume',
        )
    },
}

SAFE_LOADING = Patch(
    name='safe loading',
    why=(
        'Make every checkpoint that mmengine loads go through the rules of `read_checkpoint`. '
        'Upstream mmengine cannot resume on torch >= 2.6, where weights_only is the default; the '
        'maintained fork loads a refused file again with weights_only=False, and both load '
        'downloads unsafely.'
    ),
    replacements=_SAFE_LOADERS.items,
)

PATCHES = [
    Patch(
        name='mmcv operators',
        why=(
            'Let mmcv, and the packages that import mmcv.ops, run without the compiled extension '
            'module mmcv._ext: mmcv has no wheels for current torch versions.'
        ),
        replacements=install.replacements,
    ),
    Patch(
        name='mmseg configs',
        why=(
            "Let `_base_ = 'mmseg::...'` find the maintained fork's mmsegmentation. mmengine "
            'looks for the distribution name mmsegmentation, and the fork has another one; it is '
            'found by the name of its module.'
        ),
        replacements=_mmseg_name,
    ),
    Patch(
        name='mmcloformer configs',
        why=(
            "Let `_base_ = 'mmcloformer::NAME.py'` find the configs installed with this package. "
            'mmengine accepts only the names of its own packages, and only configs in folders.'
        ),
        replacements={
            'mmengine.config.config._get_package_and_cfg_path': _split_config_path_or_ours,
            'mmengine.hub.hub._get_package_and_cfg_path': _split_config_path_or_ours,
        }.items,
    ),
    SAFE_LOADING,
    Patch(
        name='shipped weights',
        why="Let mmengine load 'mmcloformer://NAME', the weights installed with this package.",
        replacements={f'{_SCHEMES}[{shipped.SCHEME}]': shipped.load_from_package}.items,
    ),
    Patch(
        name='whole files',
        why='Let `AtomicCheckpointHook` name the storage backend through which it saves.',
        replacements={f'mmengine.fileio.backends.backends[{BACKEND}]': WholeFilesBackend}.items,
    ),
]
"""Patches in the order in which `import mmcloformer` applies them.

Each one changes a host for the whole process. A patch of a single object, such as one Runner,
also belongs in this package, but is applied by the code that builds the object and is not listed
here.
"""


def apply_patches() -> None:
    """Apply all patches; applying them again changes nothing.

    The patch for safe loading is left out if the environment variable `MMCLOFORMER_SAFE_LOADING`
    is `0` (docs/security.md).
    """
    for patch in PATCHES:
        if patch is not SAFE_LOADING or os.environ.get('MMCLOFORMER_SAFE_LOADING') != '0':
            patch.apply()


def undo_patches() -> None:
    """Put every replaced object back; doing so again changes nothing.

    Modules that were imported while mmcv's operators were patched keep them.
    """
    for patch in reversed(PATCHES):
        patch.undo()
