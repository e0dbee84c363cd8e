"""Reads checkpoint files without running code from them.

A `.pth` file is read by the unpickler of this package, in torch's format (a zip archive) and in
the one before torch 1.6. No part of `torch.load` is used.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from ..errors import CheckpointError, join_first
from ..models.state_dict import STATE_DICT_KEYS, find_state_dict
from .unpickling import StandIn, Unpickler, find_stand_ins

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class _DeviceError(Exception):
    """Tensors cannot be put on their device."""


def read_checkpoint(
    source: str | Path | BinaryIO,
    map_location: Any = 'cpu',
    strict: bool = False,
    name: str | None = None,
) -> Any:
    """Read a file of torch or safetensors.

    Objects other than tensors, plain containers, numpy's numbers and arrays, and mmengine's
    histories become stand-ins: nothing in the file runs.

    Args:
        source: Path of the file, or the open file.
        map_location: Device of the tensors, as for `torch.load`.
        strict: Whether to refuse a file with any stand-in, for resuming.
        name: Name of an open file, for messages.

    Raises:
        CheckpointError: If the file does not exist, is truncated or damaged, or is not a
            checkpoint; if weights are stand-ins, or anything is with `strict`.
    """
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        if path.is_dir():
            raise CheckpointError(f'checkpoint {path} is a folder; name a file in it')
        if not path.is_file():
            raise CheckpointError(f'checkpoint {path} does not exist')
        with path.open('rb') as file:
            return read_checkpoint(file, map_location, strict)
    name = name or getattr(source, 'name', 'in memory')
    try:
        content = _read(source, map_location)
    except _DeviceError as error:
        raise CheckpointError(
            f"checkpoint {name} cannot be loaded: {error}; with map_location='cpu' it can"
        ) from error
    except Exception as error:  # A damaged file can raise any error.
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f'checkpoint {name} cannot be read: it is damaged, truncated or not a checkpoint. Use '
            f'an earlier one of the same run, or delete it and download it again. '
            f'({reason.splitlines()[0]})'
        ) from error
    if strict and isinstance(content, dict):
        _drop_stand_ins(content.get('param_schedulers'))
    key, checked = ('', content) if strict else _find_weights(content)
    found = [f'{path or "it"} is {value!r}' for path, value in find_stand_ins(checked, key)]
    if found:
        purpose, advice = 'as weights', 'Ask its author for a state dict'
        if strict:
            purpose, advice = 'for resuming', 'Start a new run from its weights with load_from'
        raise CheckpointError(
            f'checkpoint {name} is refused {purpose}: {join_first(found, 3)}; loading that would '
            f'run code from the file. {advice}.'
        )
    return content


def _drop_stand_ins(schedulers: Any) -> None:
    """Drop objects from the states of schedulers, such as the `anneal_func` of OneCycleLR.

    A resumed scheduler keeps its own in their place, as built from the config.
    """
    for group in schedulers.values() if isinstance(schedulers, dict) else [schedulers]:
        for state in group if isinstance(group, list) else ():
            if isinstance(state, dict):
                for name in [key for key, value in state.items() if isinstance(value, StandIn)]:
                    del state[name]


def _find_weights(content: Any) -> tuple[str, Any]:
    key, weights = find_state_dict(content)
    # A dict of dicts is not a state dict itself.
    values = content.values() if isinstance(content, Mapping) and not key else ()
    if any(isinstance(value, Mapping) for value in values):
        weights = {key: content[key] for key in STATE_DICT_KEYS if key in content}
    return key, weights


def _read(file: BinaryIO, map_location: Any) -> Any:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(9)
    file.seek(0)
    if start[8:] == b'{':
        device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
        weights = safetensors.torch.load(file.read())
        return {key: _move(value, device) for key, value in weights.items()}
    storages = _Storages(size, map_location)
    return (_read_zip if start.startswith(b'PK') else _read_legacy)(file, storages)


class _Storages:
    """The storages of a file: memory on their devices, and later their content.

    Args:
        size: Size of the file; all storages together may not be larger.
        map_location: Device of the tensors, as for `torch.load`.
    """

    def __init__(self, size: int, map_location: Any) -> None:
        self._left = size
        self._map_location = map_location
        self.flat: dict[str, Tensor] = {}

    def get(self, dtype: torch.dtype, key: str, device: str, numel: int) -> Tensor:
        """Return a storage as a flat tensor."""
        if key not in self.flat:
            nbytes = numel * dtype.itemsize
            self._left -= nbytes
            if nbytes < 0 or self._left < 0:
                raise pickle.UnpicklingError('storages larger than the file')
            self.flat[key] = self._move(torch.empty(nbytes, dtype=torch.uint8), device)
        flat = self.flat[key].view(dtype)
        if len(flat) != numel:
            raise pickle.UnpicklingError(f'storage {key} of two sizes')
        return flat

    def fill(self, key: str, data: bytes) -> None:
        """Copy the content of a storage from the file."""
        flat = self.flat.pop(key)
        if len(data) != len(flat):
            raise pickle.UnpicklingError(f'{len(data)} of {len(flat)} bytes of storage {key}')
        if data:
            flat.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def _move(self, flat: Tensor, device: str) -> Tensor:
        where = self._map_location
        if callable(where):
            moved = where(flat.untyped_storage(), device)
            if moved is not None:
                return torch.empty(0, dtype=torch.uint8, device=moved.device).set_(moved)
            where = device
        if isinstance(where, Mapping):
            where = where.get(device, device)
        return _move(flat, device if where is None else where)


def _move(tensor: Tensor, device: Any) -> Tensor:
    try:
        return tensor.to(device)
    # Whatever a missing driver, a device that is not there or full memory raises.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition('\n')[0]
        raise _DeviceError(f'its tensors cannot be put on {device} ({reason})') from error


def _read_zip(file: BinaryIO, storages: _Storages) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (pickled,) = (n for n in names if n.count('/') == 1 and n.endswith('/data.pkl'))
        folder = pickled.removesuffix('data.pkl')

        def read(name: str) -> bytes:
            entry = archive.getinfo(folder + name)
            # torch compresses nothing; a small file could unpack to any size.
            if entry.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError('a compressed entry')
            return archive.read(entry)

        if f'{folder}byteorder' in names and read('byteorder') != b'little':
            raise pickle.UnpicklingError('big-endian numbers')
        content = Unpickler(io.BytesIO(read('data.pkl')), storages.get).load()
        for key in list(storages.flat):
            storages.fill(key, read(f'data/{key}'))
        return content


def _read_legacy(file: BinaryIO, storages: _Storages) -> Any:
    """Read the format before torch 1.6: pickles, of which the fourth is the content, and then the
    storages in the order that the last one gives."""
    if Unpickler(file).load() != _LEGACY_MAGIC:
        raise pickle.UnpicklingError('not a file of torch')
    Unpickler(file).load()
    if Unpickler(file).load().get('little_endian') is not True:
        raise pickle.UnpicklingError('big-endian numbers')
    content = Unpickler(file, storages.get).load()
    for key in Unpickler(file).load():
        file.seek(8, io.SEEK_CUR)  # The number of elements, which the content has too.
        storages.fill(key, file.read(len(storages.flat[key])))
    if storages.flat:
        raise pickle.UnpicklingError(f'{len(storages.flat)} storages without content')
    return content
