"""Backbone weights that travel with the package: `mmcloformer://NAME`."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ..errors import CheckpointError
from .matching import read_state_dict
from .reading import read_checkpoint
from .saving import write_whole

SCHEME = 'mmcloformer://'
FOLDER = Path(__file__).parents[1] / 'weights'
_BACKBONE = 'backbone.'


def publish(checkpoint: str | Path, name: str, folder: Path = FOLDER) -> Path:
    """Write a classifier's backbone to where `mmcloformer://NAME` finds it, in half precision.

    Args:
        checkpoint: As `tools/train.py` writes it.
        name: Name of the weights, of letters, digits, `_`, `.` and `-`.
        folder: Another than the package's.

    Returns:
        The file.

    Raises:
        CheckpointError: If the name has other characters or is taken, there is no backbone in the
            checkpoint, or a weight is not finite in half precision.
    """
    if not re.fullmatch(r'[\w.-]+', name):
        raise CheckpointError(
            f'{name!r} is no name for weights; choose one of letters, digits, "_", "." and "-"'
        )
    path = folder / f'{name}.safetensors'
    if path.exists():
        raise CheckpointError(f'{path} exists; remove it or choose another name')
    weights = {
        key.removeprefix(_BACKBONE): value.half() if value.is_floating_point() else value
        for key, value in read_state_dict(str(checkpoint)).items()
        if key.startswith(_BACKBONE)
    }
    if not weights:
        raise CheckpointError(f'{checkpoint} holds no backbone: no key begins with {_BACKBONE!r}')
    spoilt = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if spoilt:
        raise CheckpointError(
            f'{checkpoint}: {len(spoilt)} tensors are not finite in half precision, first '
            f'{spoilt[0]}; nothing was written'
        )
    write_whole(path, save({key: value.contiguous() for key, value in weights.items()}))
    return path


def load_from_package(filename: str, map_location: Any = None) -> Any:
    """Read `mmcloformer://NAME` for mmengine."""
    name = filename.removeprefix(SCHEME)
    shipped = {path.stem: path for path in FOLDER.glob('*.safetensors')}
    if name not in shipped:
        raise CheckpointError(
            f'no weights {name!r} come with this version of mmcloformer; it has '
            f'{", ".join(sorted(shipped)) or "none"}'
        )
    return read_checkpoint(shipped[name], map_location)
