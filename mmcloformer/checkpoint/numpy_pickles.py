"""Replacements for numpy's unpickling that build plain numbers and arrays of numbers only.

numpy trusts a pickle: with a forged dtype state, an array interprets bytes of the file as addresses
of objects. The replacements accept a few dtypes, and check the number of bytes.
"""

import math
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

_CODES = ('b1', 'u1', 'i4', 'i8', 'u4', 'u8', 'f2', 'f4', 'f8')
_STATES = [(3, order, None, None, None, -1, -1, 0) for order in ('<', '|')]


class SafeDtype:
    """Replaces `numpy.dtype`.

    Args:
        code: Kind and size of a number.
        flags: numpy's `align` and `copy`, ignored.
    """

    def __init__(self, code: str, *flags: Any) -> None:
        if code not in _CODES:
            raise pickle.UnpicklingError(f'numpy.dtype of {code!r:.40}')
        self.dtype = np.dtype(f'<{code}')

    def __setstate__(self, state: Any) -> None:
        if state not in _STATES:
            raise pickle.UnpicklingError(f'numpy.dtype of the state {state!r:.40}')


class SafeArray(np.ndarray[Any, Any]):
    """Replaces `numpy.ndarray`; pickling it again gives an ordinary array."""

    def __new__(cls) -> 'SafeArray':
        """Return an empty array; `__setstate__` receives its content."""
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        items = math.prod(shape)
        plain = type(dtype) is SafeDtype and isinstance(data, bytes)
        if not plain or len(data) != items * dtype.dtype.itemsize:
            raise pickle.UnpicklingError('numpy.ndarray of a size that does not match its shape')
        super().__setstate__((1, shape, dtype.dtype, fortran, data))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)


def safe_reconstruct(kind: type, shape: Sequence[int], code: bytes) -> SafeArray:
    """Replaces `numpy.core.multiarray._reconstruct`, which makes an empty array."""
    if kind is not SafeArray:
        raise pickle.UnpicklingError(f'numpy.ndarray of {kind!r:.40}')
    return SafeArray()


def safe_scalar(dtype: SafeDtype, data: bytes) -> np.generic:
    """Replaces `numpy.core.multiarray.scalar`."""
    if type(dtype) is not SafeDtype or len(data) != dtype.dtype.itemsize:
        raise pickle.UnpicklingError('numpy.scalar of a size that does not match its type')
    number: np.generic = np.frombuffer(data, dtype.dtype)[0]
    return number


# Replacement, and the name in pickles. numpy 2 moved the two functions.
SAFE_NUMPY = [
    (SafeDtype, 'numpy.dtype'),
    (SafeArray, 'numpy.ndarray'),
    *(
        (replacement, f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for replacement, name in ((safe_reconstruct, '_reconstruct'), (safe_scalar, 'scalar'))
    ),
]
