"""Whether a crash can be the data's doing, by where in the hosts it happened."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError

# Loading, comparing labels with predictions, evaluating.
_MODULES = ('torch.utils.data.', 'mmengine.dataset.', '.datasets.', '.losses.', '.metrics.')
_FUNCTION = 'loss_by_feat'
# A GPU tells of a label out of range later and elsewhere.
_GPU = 'device-side assert'


@contextmanager
def suggest_data_check(config: str) -> Iterator[None]:
    """After the traceback of a crash that data can be behind, name the tool that examines them.

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
    below = error.__traceback__ and error.__traceback__.tb_next  # This file's own frame is first.
    for frame, _ in traceback.walk_tb(below):
        module = frame.f_globals.get('__name__', '') + '.'
        if any(part in module for part in _MODULES) or frame.f_code.co_name == _FUNCTION:
            return True
    return _GPU in str(error)
