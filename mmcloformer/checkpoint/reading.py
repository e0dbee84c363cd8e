"""Reading checkpoints without ever running code from them."""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer

from ..errors import CheckpointError
from .downloading import download_once
from .numpy_pickles import SAFE_NUMPY


def _history_buffer_getattr(owner: Any, name: str) -> Any:
    """Replace `getattr`, which pickles of HistoryBuffer call to find its own statistics.

    The builtin would let a file reach any attribute of any object.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'getattr of {name!r}')
    return getattr(HistoryBuffer, name)


# Types in mmengine's own checkpoints besides tensors and plain containers: the histories of the
# message hub, and the numbers and arrays inside them.
_MMENGINE_TYPES = [
    HistoryBuffer,
    (_history_buffer_getattr, 'builtins.getattr'),
    *SAFE_NUMPY,
]
# The part of an error message that names the refused object, from torch or from this package.
_REFUSED_OBJECT = re.compile(r'GLOBAL \S+|getattr of \S+|numpy\.\w+ of [^\n]*')


def read_checkpoint(filename: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a `.pth` or `.safetensors` file.

    A `.pth` file may hold tensors, plain containers and the types that mmengine saves.

    Args:
        filename: File on disk.
        map_location: Device of the tensors, as for `torch.load`.

    Raises:
        CheckpointError: If the file does not exist, is truncated or damaged, is not a checkpoint,
            or holds objects that could only be loaded by running code.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise CheckpointError(f'checkpoint {path} does not exist')
    if path.suffix == '.safetensors':
        return _read_safetensors(path, map_location)
    return _read_pickle(path, map_location, str(path))


# The functions below replace mmengine's own, see `mmcloformer.compat.patches`. mmengine logs
# `loader.__name__[10:]` as the name of the backend, so their names begin with `load_from_`.


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a file for mmengine; the arguments and errors are those of `read_checkpoint`."""
    return _drop_config(read_checkpoint(filename, map_location))


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
        CheckpointError: If the content is damaged, or holds objects that would run code.
    """
    content = get_file_backend(filename, backend_args=dict(backend=backend)).get(filename)
    return _drop_config(_read_pickle(io.BytesIO(content), map_location, filename))


def safe_torch_load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Read a path or an open file for mmengine.

    Args:
        file: Path or binary file.
        map_location: Device of the tensors, as for `torch.load`.
        weights_only: Part of mmengine's signature; always treated as True.

    Raises:
        CheckpointError: If the content is damaged, or holds objects that would run code.
    """
    name = str(file) if isinstance(file, (str, Path)) else getattr(file, 'name', 'in memory')
    return _drop_config(_read_pickle(file, map_location, name))


def _read_pickle(file: Any, map_location: Any, name: str) -> Any:
    try:
        with torch.serialization.safe_globals(_MMENGINE_TYPES):
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if not (refused := _REFUSED_OBJECT.search(str(error))):
            raise _damaged(name, error) from error
        raise CheckpointError(
            f'checkpoint {name} is refused: it holds objects other than weights, and loading '
            f'them would run code from the file. Ask its author for a state dict, or save one '
            f'from a process you trust. ({refused[0]})'
        ) from error
    except Exception as error:  # A damaged file can raise any error, in torch and below it.
        raise _damaged(name, error) from error


def _read_safetensors(path: Path, map_location: Any) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        return load_file(path, device=str(device))
    except SafetensorError as error:
        raise _damaged(str(path), error) from error


def _drop_config(loaded: Any) -> Any:
    """Remove the text of a config, which mmengine would run as Python code when it resumes.

    Only checkpoints older than mmengine have one under this key.
    """
    if isinstance(loaded, dict) and 'meta' in loaded:
        if not isinstance(loaded['meta'], dict):
            raise CheckpointError(
                f'a checkpoint is refused: meta is {type(loaded["meta"]).__name__}, expected dict'
            )
        loaded['meta'].pop('config', None)
    return loaded


def _damaged(name: str, error: Exception) -> CheckpointError:
    # The text of torch's UnpicklingError recommends weights_only=False, so it is left out.
    is_pickle_error = isinstance(error, pickle.UnpicklingError)
    reason = 'not a pickle of weights' if is_pickle_error else str(error) or type(error).__name__
    return CheckpointError(
        f'checkpoint {name} cannot be read: it is damaged, truncated or not a checkpoint. Use an '
        f'earlier one of the same run, or delete it and download it again. '
        f'({reason.splitlines()[0]})'
    )
