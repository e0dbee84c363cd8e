"""Reading checkpoints without ever running code from them."""

import pickle
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, checkpoint

from ..errors import CheckpointError
from .numpy_pickles import SAFE_NUMPY


def _statistic(owner: Any, name: str) -> Any:
    """Stand in for `getattr`, which a HistoryBuffer's pickle calls for its own statistics; the
    real one would let a file reach into any object."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'getattr of {name!r}')
    return getattr(HistoryBuffer, name)


# What mmengine's own checkpoints hold besides tensors and plain containers: the message hub's
# histories, and the numbers and arrays inside them.
_MMENGINE_TYPES = [HistoryBuffer, (_statistic, 'builtins.getattr'), *SAFE_NUMPY]
# What a refusal of torch's or of ours names.
_REFUSED = re.compile(r'GLOBAL \S+|getattr of \S+|numpy\.\w+ of [^\n]*')


def read_checkpoint(filename: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a `.pth` or `.safetensors` file; a pickle may hold tensors, plain containers and
    the types that mmengine saves, and nothing else.

    Args:
        filename: File on disk.
        map_location: Where tensors go, as for `torch.load`.

    Raises:
        CheckpointError: If the file is absent, cut short, no checkpoint, or holds objects that
            would need code to be run.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise CheckpointError(f'checkpoint {path} does not exist')
    if path.suffix == '.safetensors':
        return _read_safetensors(path, map_location)
    try:
        return _load(path, map_location)
    except pickle.UnpicklingError as error:
        if not (reason := _REFUSED.search(str(error))):
            raise _damaged(path, error) from error
        raise CheckpointError(
            f'checkpoint {path} is refused: it holds objects other than weights, and loading '
            f'them would run code from the file. Ask its author for a state dict, or save one '
            f'from a process you trust. ({reason[0]})'
        ) from error
    except Exception as error:  # Damage can raise any, in torch and below it.
        raise _damaged(path, error) from error


def register_safe_loading() -> None:
    """Make every checkpoint that mmengine loads (`init_cfg`, `load_from`, `--resume`, testing),
    wherever from, go through `read_checkpoint`'s rules.

    Upstream mmengine cannot resume on torch >= 2.6, where `weights_only` is the default; the
    maintained fork falls back to unsafe loading on a refusal, and both load downloads unsafely.
    This replaces all of that.
    """
    CheckpointLoader.register_scheme('', _load_from_local, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), _load_from_http, force=True)
    # `torchvision://`, `open-mmlab://` and `mmcls://` look up an address and call the first;
    # what is left, `s3://` and its like, calls the second in the maintained fork.
    checkpoint.load_from_http = _load_from_http
    checkpoint._safe_torch_load = _load_for_mmengine


# mmengine logs `loader.__name__[10:]` as the backend's name.
def _load_from_local(filename: str, map_location: Any = None) -> Any:
    return _without_config(read_checkpoint(filename, map_location))


def _load_from_http(filename: str, map_location: Any = None) -> Any:
    target = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(filename).path).name)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(target))
    return _load_from_local(str(target), map_location)


def _load_for_mmengine(file: Any, map_location: Any = None) -> Any:
    return _without_config(_load(file, map_location))


def _load(file: Any, map_location: Any) -> Any:
    with torch.serialization.safe_globals(_MMENGINE_TYPES):
        return torch.load(file, map_location=map_location, weights_only=True)


def _without_config(loaded: Any) -> Any:
    """Drop the text of a config, which mmengine would run as Python when it resumes. Only
    checkpoints older than mmengine hold one under this key."""
    if isinstance(loaded, dict) and 'meta' in loaded:
        if not isinstance(loaded['meta'], dict):
            raise CheckpointError(f'a checkpoint whose meta is {type(loaded["meta"])} is refused')
        loaded['meta'].pop('config', None)
    return loaded


def _read_safetensors(path: Path, map_location: Any) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        return load_file(path, device=str(device))
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    # Not torch's advice to load it unsafely.
    unpickling = isinstance(error, pickle.UnpicklingError)
    reason = 'no pickle of weights' if unpickling else str(error) or type(error).__name__
    return CheckpointError(
        f'checkpoint {path} cannot be read: it is damaged, cut short or no checkpoint. Use an '
        f'earlier one of the same run, or download it again. ({reason.splitlines()[0]})'
    )
