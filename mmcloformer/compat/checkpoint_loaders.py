"""Replacements for mmengine's functions that load checkpoints; none runs code from a file."""

import functools
import io
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from mmengine.fileio import get_file_backend

from ..checkpoint.downloading import download_once
from ..checkpoint.files import read_checkpoint

_IS_RESUMING = ContextVar('_IS_RESUMING', default=False)


def while_resuming(resume: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method that resumes training refuse files that cannot be restored completely.

    All other loading needs the weights alone.

    Args:
        resume: A method of mmengine that loads a checkpoint.
    """

    @functools.wraps(resume)
    def resume_strictly(*args: Any, **kwargs: Any) -> Any:
        token = _IS_RESUMING.set(True)
        try:
            return resume(*args, **kwargs)
        finally:
            _IS_RESUMING.reset(token)

    return resume_strictly


# mmengine logs the name without its first ten letters as that of the backend.
def load_from_mmcloformer(
    source: str | Path | BinaryIO,
    map_location: Any = None,
    model_dir: str | None = None,
    **_: Any,
) -> Any:
    """Load a checkpoint in place of any of mmengine's loaders.

    Args:
        source: A path, an `http://` or `https://` URL, which is downloaded once per job, the name
            of an object in an `s3://` or `petrel://` store, or an open file.
        map_location: Device of the tensors, as for `torch.load`.
        model_dir: Folder of downloaded files; by default that of `torch.hub`.
        **_: Other arguments of mmengine's loaders, without effect.

    Raises:
        CheckpointError: If the file cannot be downloaded, or `read_checkpoint` refuses it.
    """
    file: str | Path | BinaryIO = source
    name = None
    if isinstance(source, str) and source.startswith(('http://', 'https://')):
        file = download_once(source, model_dir)
    elif isinstance(source, str) and '://' in source:
        store = get_file_backend(source, backend_args=dict(backend='petrel'))
        file, name = io.BytesIO(store.get(source)), source
    loaded = read_checkpoint(file, map_location, _IS_RESUMING.get(), name)
    # mmengine would run the `config` of an old checkpoint when it resumes. From a `meta` that is no
    # dict it reads nothing, and its inferencers fail.
    meta = loaded.get('meta') if isinstance(loaded, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    elif meta is not None:
        del loaded['meta']
    return loaded
