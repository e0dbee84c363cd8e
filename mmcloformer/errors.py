"""Errors that a user can mend; the tools print them as one message without a traceback."""

from collections.abc import Sequence
from typing import Any


class UserError(RuntimeError):
    """Base of all errors of this package; its message says what to do."""


class ConfigError(UserError, ValueError):
    """An argument of a config is out of its range."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, untrusted, of another model, or cannot be saved."""


class DataError(UserError):
    """A data set is not where the config says, or not what it says."""


class DivergenceError(UserError):
    """A loss or a weight became NaN or infinite in training."""


def listed(values: Sequence[Any], most: int = 8) -> str:
    """Write down values for a message, the first of them if they are many.

    Args:
        values: All of them.
        most: How many to write.
    """
    more = ', ...' if len(values) > most else ''
    return ', '.join(map(str, values[:most])) + more
