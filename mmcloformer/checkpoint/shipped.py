"""Weights that are part of the package: `mmcloformer://NAME`."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from ..errors import CheckpointError
from ..models.state_dict import get_state_dict
from .convert import describe_classifier
from .files import read_checkpoint
from .saving import write_whole

SCHEME = 'mmcloformer://'
FOLDER = Path(__file__).parents[1] / 'weights'
INDEX = 'index.json'
_META = 'mmcloformer'  # The entry of the safetensors header that holds the metadata.


def publish(
    checkpoint: str | Path,
    name: str,
    classes: Sequence[str] | None = None,
    folder: Path = FOLDER,
) -> Path:
    """Write a trained classifier to where `mmcloformer://NAME` finds it, in half precision.

    The file holds the whole classifier and its metadata (arch, number and names of the classes);
    the SHA-256 of the file goes into the index of the folder.

    Args:
        checkpoint: Checkpoint of a classifier, as `tools/train.py` writes it.
        name: Name of the weights, made of letters, digits, `_`, `.` and `-`.
        classes: Names of the classes in the order of the labels; by default those in the
            checkpoint.
        folder: Folder to write to.

    Returns:
        The file.

    Raises:
        CheckpointError: If the name has other characters or is taken, the checkpoint does not hold
            a CloFormer classifier, the class names are missing or do not match its head, or a
            weight is not finite in half precision.
    """
    if not re.fullmatch(r'[\w.-]+', name):
        raise CheckpointError(
            f'{name!r} is not a valid name for weights; use letters, digits, "_", "." and "-"'
        )
    path = folder / f'{name}.safetensors'
    if path.exists():
        raise CheckpointError(f'{path} exists; remove it or choose another name')
    loaded = read_checkpoint(checkpoint)
    state_dict = get_state_dict(loaded, str(checkpoint))
    meta = describe_classifier(state_dict)
    num_classes = meta['num_classes']
    if classes is None:
        found = loaded
        for key in ('meta', 'dataset_meta', 'classes'):
            found = found.get(key) if isinstance(found, dict) else None
        classes = tuple(found) if isinstance(found, (list, tuple, np.ndarray)) else ()
    if len(classes) != num_classes:
        raise CheckpointError(
            f'{checkpoint} has {num_classes} classes and there are {len(classes)} class names: '
            'give a file with one name per line with --classes'
        )
    meta['classes'] = [*map(str, classes)]
    weights = {
        # A copy: safetensors refuses tensors that share their memory.
        key: (value.half() if value.is_floating_point() else value).clone(
            memory_format=torch.contiguous_format
        )
        for key, value in state_dict.items()
    }
    not_finite = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if not_finite:
        raise CheckpointError(
            f'{checkpoint}: {len(not_finite)} tensors are not finite in half precision, first '
            f'{not_finite[0]}; nothing was written'
        )
    content = save(weights, {_META: json.dumps(meta)})
    write_whole(path, content)
    index = _read_index(folder)
    index[name] = dict(
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        arch=meta['arch'],
        num_classes=num_classes,
    )
    write_whole(folder / INDEX, (json.dumps(index, indent=2, sort_keys=True) + '\n').encode())
    return path


def load_from_package(
    name: str, map_location: Any = 'cpu', folder: Path | None = None
) -> dict[str, Any]:
    """Load a classifier that is part of the package.

    Args:
        name: Name of the weights, maybe with `mmcloformer://`, as mmengine gives it.
        map_location: Device of the tensors.
        folder: Folder of the weights; by default that of the package.

    Returns:
        A checkpoint as mmpretrain writes it: `state_dict` in float32 with the keys of backbone
        and head, and `meta` with `arch`, `num_classes` and `dataset_meta` (the class names).

    Raises:
        CheckpointError: If there are no such weights, or the file is missing or damaged.
    """
    folder = folder or FOLDER
    name = name.removeprefix(SCHEME)
    index = _read_index(folder)
    if name not in index:
        raise CheckpointError(
            f'no weights {name!r} come with this version of mmcloformer; it has '
            f'{", ".join(sorted(index)) or "none"}'
        )
    path = folder / f'{name}.safetensors'
    problem = None
    if not path.is_file():
        problem = 'is missing'
    elif (digest := hashlib.sha256(path.read_bytes()).hexdigest()) != index[name]['sha256']:
        problem = f'is damaged (SHA-256 {digest}, expected {index[name]["sha256"]})'
    if problem:
        raise CheckpointError(
            f'{path} {problem}: install mmcloformer again or, in a clone, run '
            f'`git checkout -- {path.name}` in {folder}; publish weights of your own '
            'again'
        )
    with safe_open(path, 'pt') as file:
        meta = json.loads(file.metadata()[_META])
    weights = read_checkpoint(path, map_location)
    state_dict = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    meta['dataset_meta'] = dict(classes=tuple(meta.pop('classes')))
    return dict(state_dict=state_dict, meta=meta)


def _read_index(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / INDEX
    return json.loads(path.read_text()) if path.exists() else {}
