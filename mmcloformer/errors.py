"""Errors a user can fix; the tools print them as one message without a traceback."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]  # Of a checkout; site-packages in an installed wheel.


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


def tool_command(tool: str) -> str:
    """Return the command that runs a tool of this package, in a checkout or from a wheel.

    Args:
        tool: Path of the tool below `tools/`.
    """
    if (_ROOT / 'tools' / tool).is_file():
        return f'python tools/{tool}'
    return f'python -m mmcloformer mmcloformer::{tool}'
