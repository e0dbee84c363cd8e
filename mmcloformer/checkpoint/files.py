"""Reads checkpoint files without running code from them.

A `.pth` file is read by the unpickler of this package, in torch's format (a zip archive) and in
the one before torch 1.6. No part of `torch.load` is used.
"""

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError, join_first
from ..models.state_dict import STATE_DICT_KEYS, find_state_dict
from .unpickling import Unpickler, find_stand_ins, restore

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_checkpoint(filename: str | Path, map_location: Any = 'cpu', strict: bool = False) -> Any:
    """Read a file of torch or safetensors.

    Objects other than tensors, plain containers, numpy's numbers and arrays, and mmengine's
    histories become stand-ins: nothing in the file runs.

    Args:
        filename: File on disk.
        map_location: Device of the tensors, as for `torch.load`.
        strict: Whether to refuse a file with any stand-in, for resuming.

    Raises:
        CheckpointError: If the file does not exist, is truncated or damaged, or is not a
            checkpoint; if weights are stand-ins, or anything is with `strict`.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise CheckpointError(f'checkpoint {path} does not exist')
    with path.open('rb') as file:
        return read_content(file, map_location, str(path), strict)


def read_content(file: BinaryIO, map_location: Any, name: str, strict: bool = False) -> Any:
    """Read an open file; see `read_checkpoint`.

    Args:
        file: File, at its start.
        map_location: Device of the tensors, as for `torch.load`.
        name: Name of the file, for messages.
        strict: Whether to refuse a file with any stand-in.
    """
    start = file.read(9)
    file.seek(0)
    try:
        if start[8:] == b'{':
            content = _read_safetensors(file, map_location)
        elif start.startswith(b'PK'):
            content = _read_zip(file, map_location)
        else:
            content = _read_legacy(file, map_location)
        content = restore(content)
    except Exception as error:  # A damaged file can raise any error.
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f'checkpoint {name} cannot be read: it is damaged, truncated or not a checkpoint. Use '
            f'an earlier one of the same run, or delete it and download it again. '
            f'({reason.splitlines()[0]})'
        ) from error
    _check_stand_ins(content, name, strict)
    return content


def _check_stand_ins(content: Any, name: str, strict: bool) -> None:
    path, checked = ('', content) if strict else find_state_dict(content)
    # A dict of dicts is not a state dict itself.
    is_nested = isinstance(checked, Mapping) and any(
        isinstance(value, Mapping) for value in checked.values()
    )
    if not strict and not path and is_nested:
        checked = {key: content[key] for key in STATE_DICT_KEYS if key in content}
    found = [f'{path or "it"} is {value!r}' for path, value in find_stand_ins(checked, path)]
    if found:
        purpose, advice = 'as weights', 'Ask its author for a state dict'
        if strict:
            purpose, advice = 'for resuming', 'Start a new run from its weights with load_from'
        raise CheckpointError(
            f'checkpoint {name} is refused {purpose}: {join_first(found, 3)}; loading that would '
            f'run code from the file. {advice}.'
        )


class _Storages:
    """The storages of a file, each read once and moved to its device.

    Args:
        read: Returns the bytes of a storage, given its key and size.
        size: Size of the file; all storages together may not be larger.
        map_location: Device of the tensors, as for `torch.load`.
    """

    def __init__(self, read: Callable[[str, int], bytes], size: int, map_location: Any) -> None:
        self._read = read
        self._left = size
        self._map_location = map_location
        self._storages: dict[str, Tensor] = {}

    def __call__(self, dtype: torch.dtype, key: str, device: str, numel: int) -> Tensor:
        """Return a storage as a flat tensor."""
        if key not in self._storages:
            nbytes = numel * dtype.itemsize
            self._left -= nbytes
            if nbytes < 0 or self._left < 0:
                raise pickle.UnpicklingError('storages larger than the file')
            data = bytearray(self._read(key, nbytes))
            if len(data) != nbytes:
                raise pickle.UnpicklingError(f'{len(data)} of {nbytes} bytes of storage {key}')
            flat = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
            self._storages[key] = self._move(flat, device)
        flat = self._storages[key].view(dtype)
        if len(flat) != numel:
            raise pickle.UnpicklingError(f'storage {key} of two sizes')
        return flat

    def _move(self, flat: Tensor, device: str) -> Tensor:
        where = self._map_location
        if callable(where):
            moved = where(flat.untyped_storage(), device)
            if moved is not None:
                return torch.empty(0, dtype=torch.uint8, device=moved.device).set_(moved)
            where = device
        if isinstance(where, Mapping):
            where = where.get(device, device)
        return flat.to(device if where is None else where)


def _read_zip(file: BinaryIO, map_location: Any) -> Any:
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
        storages = _Storages(lambda key, _: read(f'data/{key}'), _size(file), map_location)
        return Unpickler(io.BytesIO(read('data.pkl')), storages).load()


def _read_legacy(file: BinaryIO, map_location: Any) -> Any:
    """Read the format before torch 1.6: pickles, of which the fourth is the content, and then the
    storages in the order that the last one gives."""
    if Unpickler(file).load() != _LEGACY_MAGIC:
        raise pickle.UnpicklingError('not a file of torch')
    Unpickler(file).load()
    if Unpickler(file).load().get('little_endian') is not True:
        raise pickle.UnpicklingError('big-endian numbers')
    start = file.tell()
    sizes: dict[str, int] = {}

    def note(dtype: torch.dtype, key: str, device: str, numel: int) -> Tensor:
        sizes[key] = numel * dtype.itemsize
        return torch.empty(numel, dtype=dtype, device='meta')

    Unpickler(file, note).load()
    end = file.tell()
    places: dict[str, int] = {}
    for key in Unpickler(file).load():
        file.seek(8, 1)  # the number of elements, which the content has too
        places[key] = file.tell()
        file.seek(sizes[key], 1)

    def read(key: str, nbytes: int) -> bytes:
        file.seek(places[key])
        return file.read(nbytes)

    storages = _Storages(read, _size(file), map_location)
    file.seek(start)
    return Unpickler(io.BytesIO(file.read(end - start)), storages).load()


def _size(file: BinaryIO) -> int:
    position = file.tell()
    size = file.seek(0, 2)
    file.seek(position)
    return size


def _read_safetensors(file: BinaryIO, map_location: Any) -> dict[str, Tensor]:
    from safetensors.torch import load

    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    return {key: value.to(device) for key, value in load(file.read()).items()}
