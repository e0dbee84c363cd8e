"""Replacements for mmengine's functions that load checkpoints; none runs code from a file.

mmengine logs `loader.__name__[10:]` as the name of the backend, so their names begin with
`load_from_`.
"""

import functools
import io
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mmengine.fileio import get_file_backend

from ..checkpoint.downloading import download_once
from ..checkpoint.files import read_checkpoint, read_content

_IS_RESUMING = ContextVar('_IS_RESUMING', default=False)


def while_resuming(resume: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method that resumes training refuse files that cannot be restored completely.

    All other loading needs the weights alone.

    Args:
        resume: A method of mmengine that calls one of the functions below.
    """

    @functools.wraps(resume)
    def resume_strictly(*args: Any, **kwargs: Any) -> Any:
        token = _IS_RESUMING.set(True)
        try:
            return resume(*args, **kwargs)
        finally:
            _IS_RESUMING.reset(token)

    return resume_strictly


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a file for mmengine; the arguments and errors are those of `read_checkpoint`."""
    return _drop_config(read_checkpoint(filename, map_location, _IS_RESUMING.get()))


def load_from_http(
    filename: str, map_location: Any = None, model_dir: str | None = None, progress: bool = False
) -> Any:
    """Download a file, once per job, and read it for mmengine.

    Args:
        filename: An `http://` or `https://` URL.
        map_location: Device of the tensors, as for `torch.load`.
        model_dir: Folder of downloaded files; by default that of `torch.hub`.
        progress: Part of mmengine's signature; there is no progress bar.

    Raises:
        CheckpointError: If the file cannot be downloaded, or `read_checkpoint` refuses it.
    """
    return load_from_local(str(download_once(filename, model_dir)), map_location)


def load_from_object_store(filename: str, map_location: Any = None, backend: str = 'petrel') -> Any:
    """Read an object of an `s3://` or `petrel://` store for mmengine.

    Args:
        filename: Name of the object, with the scheme.
        map_location: Device of the tensors, as for `torch.load`.
        backend: Name of mmengine's file backend.

    Raises:
        CheckpointError: As `read_checkpoint`.
    """
    content = get_file_backend(filename, backend_args=dict(backend=backend)).get(filename)
    return _load_from_file(io.BytesIO(content), map_location, filename)


def safe_torch_load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Read a path or an open file for mmengine.

    Args:
        file: Path or binary file.
        map_location: Device of the tensors, as for `torch.load`.
        weights_only: Part of mmengine's signature; always treated as True.

    Raises:
        CheckpointError: As `read_checkpoint`.
    """
    if isinstance(file, (str, Path)):
        return load_from_local(str(file), map_location)
    return _load_from_file(file, map_location, str(getattr(file, 'name', 'in memory')))


def _load_from_file(file: Any, map_location: Any, name: str) -> Any:
    return _drop_config(read_content(file, map_location, name, _IS_RESUMING.get()))


def _drop_config(loaded: Any) -> Any:
    """Remove the text of a config, which mmengine would run as Python code when it resumes.

    Only checkpoints older than mmengine have one under this key. A `meta` that is no dict is
    removed too: mmengine reads nothing from it, and could take it for one.
    """
    if isinstance(loaded, dict) and 'meta' in loaded:
        if isinstance(loaded['meta'], dict):
            loaded['meta'].pop('config', None)
        else:
            del loaded['meta']
    return loaded
