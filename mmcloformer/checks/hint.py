"""Suggests a check of the data after a crash, by where in the hosts it happened."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import UserError, tool_command

_WORKER_FRAME = re.compile(r'File "([^"]+)", line \d+, in (\S+)')
_BUILDING = '/mmengine/registry/build_functions.py'
# While a dataset or evaluator is built, these read its annotation files.
_READING = ('full_init', 'load_data_list', 'load_annotations')
_READER = '/pycocotools/'
_COLLATING = ('/torch/utils/data/_utils/collate.py', '/mmengine/dataset/utils.py')
_LOADING = '/loading.py'  # The transforms that read files, in every host.
_HANDLING = re.compile(
    '/mmengine/dataset/|/(mmdet|mmseg|mmpretrain)/(datasets|.*losses)/|/data/_utils/fetch.py$'
)
_FUNCTIONS = ('loss_by_feat', '_try_get_data')  # The second fails if a worker was killed.
_SCORING = re.compile('/(mmdet|mmseg|mmpretrain)/.*metrics/')
# In code that handles samples, these mean a misspelt key or a missing step of the pipeline.
_CODE_ERRORS = (AttributeError, ImportError, KeyError, NameError, NotImplementedError, TypeError)
# Messages about memory, class weights, and evaluators that do not fit the config.
_NOT_DATA = (
    'shared memory',
    'Too many open files',
    'weight tensor should be defined',
    'Results do not correspond',
    'selected index k out of range',
    'metric item',
    'is not in results',
)
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
            f'  {tool_command("misc/check_dataset.py")} {config}\n'
            'with the same --cfg-options. If it lists none, look for the cause in the config.'
        )


def _can_be_data(error: Exception) -> bool:
    """Return whether `check_dataset.py` may find the cause of an error."""
    message = str(error)
    if _GPU in message:
        return True
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or any(
        text in message for text in _NOT_DATA
    ):
        return False
    below = error.__traceback__ and error.__traceback__.tb_next  # Skip the frame of this file.
    frames = [
        (frame.f_code.co_filename.replace('\\', '/'), frame.f_code.co_name)
        for frame, _ in traceback.walk_tb(below)
    ]
    # The traceback of a worker process is only in the message.
    frames += _WORKER_FRAME.findall(message.replace('\\', '/'))
    builds = [index for index, (path, _) in enumerate(frames) if path.endswith(_BUILDING)]
    inside = frames[builds[-1] + 1 :] if builds else frames
    if any(_READER in path or name in _READING for path, name in inside):
        return True
    if builds or any(path.endswith(_COLLATING) for path, _ in frames):
        return False
    if any(_SCORING.search(path) or path.endswith(_LOADING) for path, _ in frames):
        return True
    handled = any(name in _FUNCTIONS or _HANDLING.search(path) for path, name in frames)
    return handled and not isinstance(error, _CODE_ERRORS)
