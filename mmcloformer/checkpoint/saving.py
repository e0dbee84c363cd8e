"""Writing files completely or not at all."""

import io
import os
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError


def require_new(path: str | Path) -> Path:
    """Return a path to which `save_new` may write.

    Raises:
        CheckpointError: If the file exists, or has the name of a safetensors file, which holds
            tensors only.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise CheckpointError(f'{path} exists; remove it or choose another name')
    if path.suffix == '.safetensors':
        raise CheckpointError(
            f'{path}: the file will hold more than tensors; choose a name in .pth'
        )
    return path


def save_new(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Save a checkpoint to a new file, completely or not at all.

    Raises:
        CheckpointError: As `require_new`, or if the file cannot be written.
    """
    path = require_new(path)
    content = io.BytesIO()
    torch.save(checkpoint, content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
    except OSError as error:
        raise CheckpointError(f'{path} cannot be written: {error.strerror}') from error


def write_whole(path: Path, content: bytes, partial: Path | None = None) -> None:
    """Write a file that appears under its name only when it is complete on disk.

    Args:
        path: The file, replaced if it exists.
        content: Everything it is to hold.
        partial: The file that is written and then renamed; by default `path` with `.part`.

    Raises:
        OSError: If it cannot be written; a file of that name is left as it was.
    """
    partial = partial or path.with_name(f'{path.name}.part')
    try:
        with partial.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
