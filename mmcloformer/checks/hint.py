"""Suggests a check of the data after a crash, by where in the hosts it happened."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError

# Loading, comparing labels with predictions, evaluating.
_MODULES = ('torch.utils.data.', 'mmengine.dataset.', '.datasets.', '.losses.', '.metrics.')
_FUNCTION = 'loss_by_feat'
# A GPU reports a label out of range asynchronously, in some later call.
_GPU = 'device-side assert'


@contextmanager
def suggest_data_check(config: str) -> Iterator[None]:
    """After a crash possibly caused by bad data, print the traceback and name `check_dataset.py`.

    Args:
        config: The config file.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _can_be_data(error):
            raise
        traceback.print_exc()
        sys.exit(
            'error: bad data can be the cause of this. To list bad files, run\n'
            f'  tools/misc/check_dataset.py {config}\nwith the same --cfg-options.'
        )


def _can_be_data(error: Exception) -> bool:
    below = error.__traceback__ and error.__traceback__.tb_next  # Skip the frame of this file.
    for frame, _ in traceback.walk_tb(below):
        module = frame.f_globals.get('__name__', '') + '.'
        if any(part in module for part in _MODULES) or frame.f_code.co_name == _FUNCTION:
            return True
    return _GPU in str(error)
