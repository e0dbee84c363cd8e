"""Errors a user can fix; the tools print them as one message without a traceback."""

from collections.abc import Sequence
from typing import Any


class UserError(RuntimeError):
    """Base class of this package's errors; the message says what to do."""


class ConfigError(UserError, ValueError):
    """A config argument is out of its range."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, untrusted, for another model, or cannot be saved."""


class DataError(UserError):
    """A data set is not where the config says, or its content does not match the config."""


class DivergenceError(UserError):
    """A loss or a weight became NaN or infinite during training."""


def join_first(values: Sequence[Any], limit: int = 8) -> str:
    """Join values with commas for a message, shortened to the first `limit`.

    Args:
        values: All values.
        limit: Number of values to show.
    """
    more = ', ...' if len(values) > limit else ''
    return ', '.join(map(str, values[:limit])) + more
