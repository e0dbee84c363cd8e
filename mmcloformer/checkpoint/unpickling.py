"""An unpickler that runs nothing: every class and function that a file names is a stand-in.

Only tensors, plain containers, numpy's numbers and arrays, and mmengine's histories are rebuilt, by
the functions of this module.
"""

import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

# Integers, floating-point and complex numbers, booleans and texts of a fixed size.
_NUMPY_CODE = re.compile(r'[biufcSU]\d{1,5}')

_REDUCE: Any = pickle._Unpickler.dispatch[pickle.REDUCE[0]]


class _StandInClass(type):
    name: str  # of the class or function, as the file has it

    def __repr__(cls) -> str:
        return cls.name


class StandIn(metaclass=_StandInClass):
    """Stands for an object of a class that was not imported; it does nothing.

    Attributes:
        args: Arguments that the file calls it with.
        state: State that the file gives to the object.
    """

    __slots__ = ('args', 'state')
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> 'StandIn':
        """Keep the positional arguments."""
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> 'StandIn':
        return self

    def _ignore(self, *args: Any) -> None:
        pass

    # What a pickle calls on lists, sets and dictionaries.
    append = extend = add = update = __setitem__ = _ignore

    def __repr__(self) -> str:
        return f'an object of {type(self).name}'


class Unpickler(pickle._Unpickler):
    """Reads a pickle without calling anything that the file names, except for `_REBUILT`.

    This is Python's own implementation because that in C allocates whatever size a file gives for
    its memo.

    Args:
        file: Binary file.
        read_storage: Returns the storage of a tensor as a flat tensor, given the arguments
            (dtype, key, device, number of elements).
    """

    stack: list[Any]
    memo: dict[int, Any]

    def __init__(self, file: Any, read_storage: Callable[..., Tensor] | None = None) -> None:
        super().__init__(file, encoding='utf-8', errors='surrogateescape')
        self._read_storage = read_storage
        self._stand_ins: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function."""
        path = f'{module}.{name}'
        if path in _REBUILT:
            return _REBUILT[path]
        if path not in self._stand_ins:
            self._stand_ins[path] = _StandInClass(
                'StandIn', (StandIn,), dict(name=path, __slots__=())
            )
        return self._stand_ins[path]

    def get_extension(self, code: int) -> None:
        """Refuse a class named by a number, which other code of this process may have defined."""
        raise pickle.UnpicklingError(f'extension code {code}')

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage of a tensor, or the class of a model."""
        kind, what, *rest = pid
        if kind == 'module':  # The class of a whole model, with its source.
            return what
        key, device, numel, *view = rest
        if self._read_storage is None or kind != 'storage' or type(numel) is not int or any(view):
            raise pickle.UnpicklingError(f'persistent id {pid!r:.80}')
        if not isinstance(what, torch.dtype):
            raise pickle.UnpicklingError(f'storage of {what!r:.80}')
        return self._read_storage(what, str(key), device, numel)

    def _reduce(self) -> None:
        """Call a function of `_REBUILT`, or keep the arguments in a stand-in."""
        _REDUCE(self)
        self.stack[-1] = _rebuild_known(self.stack[-1])

    def _build(self) -> None:
        """Set the state of a stand-in or an OrderedDict; no other object gets one."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, OrderedDict):
            vars(target).update(state)
            return
        if not isinstance(target, StandIn):
            raise pickle.UnpicklingError(f'state of {target!r:.40}')
        target.state = state
        known = _rebuild_known(target)
        if known is not target:
            self.stack[-1] = known
            # It was put there before its state was read, for later references to it.
            key = next((key for key in reversed(self.memo) if self.memo[key] is target), None)
            if key is not None:
                self.memo[key] = known

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
    }


def _rebuild_tensor(
    flat: Tensor, offset: int, size: Any, stride: Any, requires_grad: bool = False, *rest: Any
) -> Tensor:
    if len(rest) > 1:
        raise pickle.UnpicklingError('a tensor that is a conjugate or negative view')
    flat.as_strided(size, stride, offset)  # Raises an error for a part outside; `set_` grows.
    tensor = flat.new_empty(0).set_(flat.untyped_storage(), offset, size, stride)
    return tensor.requires_grad_(requires_grad is True)


def _rebuild_tensor_of(flat: Tensor, *args: Any) -> Tensor:
    *others, dtype = args[:6]
    return _rebuild_tensor(flat.view(dtype), *others, *args[6:])


def _rebuild_parameter(data: Any, requires_grad: bool, *_: Any) -> Any:
    return nn.Parameter(data, requires_grad is True) if isinstance(data, Tensor) else data


def _rebuild_subclass(rebuild: Any, _: Any, args: tuple[Any, ...], *__: Any) -> Any:
    """Return a plain tensor in place of one of a subclass, or of one with attributes."""
    return rebuild(*args)


def _encode(text: str, _: str) -> bytes:
    """Return the bytes that protocol 2 writes as text."""
    return text.encode('latin1')


def _plain_dict(content: Any = None, *_: Any) -> dict[Any, Any]:
    """Return a dict for one of a subclass; the factory of a defaultdict is left out."""
    return dict(content) if isinstance(content, dict) else {}


# Pickles of protocol 2 have the names of Python 2. `bytes` takes no number, which a file could
# give and which would be the size of an object in memory.
_BUILTINS = dict(set=set, frozenset=frozenset, complex=complex, bytes=lambda: b'')
_REBUILT: dict[str, Any] = {
    'collections.OrderedDict': OrderedDict,
    'collections.Counter': Counter,
    **{f'builtins.{name}': function for name, function in _BUILTINS.items()},
    **{f'__builtin__.{name}': function for name, function in _BUILTINS.items()},
    'collections.defaultdict': _plain_dict,
    'mmengine.config.config.ConfigDict': _plain_dict,
    '_codecs.encode': _encode,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch._utils._rebuild_tensor': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v3': _rebuild_tensor_of,
    'torch._utils._rebuild_parameter': _rebuild_parameter,
    'torch._utils._rebuild_parameter_with_state': _rebuild_parameter,
    'torch._tensor._rebuild_from_type_v2': _rebuild_subclass,
    'torch.storage.UntypedStorage': torch.uint8,
    **{
        f'torch.{kind}': dtype for kind, dtype in torch.storage._storage_type_to_dtype_map().items()
    },
    **{f'torch.{k}': dtype for k, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)},
}


def _rebuild_known(value: Any) -> Any:
    """Return numpy's numbers and arrays and mmengine's histories in place of their stand-ins."""
    if isinstance(value, StandIn):
        # numpy 2 moved the functions from numpy.core to numpy._core.
        name = type(value).name.replace('._core.', '.core.')
        with suppress(Exception):  # Forged ones can raise any error; they stay stand-ins.
            if name == 'numpy.core.multiarray.scalar':
                return _rebuild_array((), *value.args)[()]
            if name == 'numpy.core.multiarray._reconstruct':
                _, shape, dtype, is_fortran, data = value.state
                return _rebuild_array(shape, dtype, data, 'F' if is_fortran else 'C')
            if name == 'mmengine.logging.history_buffer.HistoryBuffer':
                log, counts = value.state['_log_history'], value.state['_count_history']
                return HistoryBuffer(log, counts, int(value.state['max_length']))
    return value


def _rebuild_array(shape: Any, dtype: StandIn, data: Any, order: Any = 'C') -> np.ndarray[Any, Any]:
    """Build an array of numbers or text. One of objects would read bytes as addresses."""
    (code, *_), (_, byte_order, *_) = dtype.args, dtype.state
    is_plain = _NUMPY_CODE.fullmatch(code) and byte_order in '<>|='
    if type(dtype).name != 'numpy.dtype' or not is_plain:
        raise TypeError(f'numpy.dtype of {code!r:.40}')
    # numpy checks that the bytes fill the shape.
    return np.ndarray(shape, np.dtype(f'{byte_order}{code}'), data, order=order).copy('K')


def find_stand_ins(
    value: Any, path: str = '', seen: set[int] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield all stand-ins in containers with their paths, such as `meta.config`.

    Args:
        value: What was unpickled.
        path: Path of the value.
        seen: Ids of the containers that were searched.
    """
    seen = set() if seen is None else seen
    if isinstance(value, (StandIn, _StandInClass)):
        yield path, value
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from find_stand_ins(key, f'a key of {path}', seen)
            yield from find_stand_ins(item, f'{path}.{key}' if path else str(key), seen)
    else:
        for index, item in enumerate(value):
            yield from find_stand_ins(item, f'{path}[{index}]', seen)
