"""Explains crashes of training that the config or the data can cause."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config

from ..config import ConfigView
from ..errors import ConfigError, UserError, tool_command
from .schedule import NEVER_STARTS, NEVER_STARTS_FAULT

_ONE_VALUE = 'Expected more than 1 value per channel'
# A GPU reports a label out of range asynchronously, in some later call.
_GPU = 'device-side assert'
_WORKER_FRAME = re.compile(r'File "([^"]+)", line \d+, in (\S+)')
_BUILDING = '/mmengine/registry/build_functions.py'
# While a data set or an evaluator is built, these read its annotation files.
_READING = re.compile('/pycocotools/|:(full_init|load_data_list|load_annotations)$')
# Code that handles samples. `_try_get_data` fails if a worker was killed.
_HANDLING = re.compile(
    '/(mmdet|mmseg|mmpretrain)/(datasets|evaluation|.*losses)/|/mmengine/dataset/|'
    '/mmcv/transforms/|/data/_utils/fetch.py|/pycocotools/|:(loss_by_feat|_try_get_data)$'
)


@contextmanager
def explain_crashes(cfg: Config, file: str) -> Iterator[None]:
    """Say what to set after a crash with a known cause, and else whether the data can be the cause.

    After a crash possibly caused by bad data, the traceback is printed, and the process ends with
    the command that checks the data.

    Args:
        cfg: The whole config.
        file: The config file.

    Raises:
        ConfigError: If BatchNorm got one value per channel, or a scheduler starts after the run.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and _ONE_VALUE in str(error):
            batch = ConfigView(cfg).loader('train').get('batch_size')
            raise _single_value_error(batch) from error
        if isinstance(error, ValueError) and NEVER_STARTS in str(error):
            raise ConfigError(f'param_scheduler: {NEVER_STARTS_FAULT} ({error})') from error
        if isinstance(error, KeyError) and 'is not in results' in str(error):
            raise ConfigError(
                f'val_evaluator compares what the model does not predict ({error}): set '
                "val_evaluator.metric and test_evaluator.metric to 'bbox' for a model without masks"
            ) from error
        if not _can_be_data(error):
            raise
        traceback.print_exc()
        sys.exit(
            'error: bad data can be the cause of this. To list bad files, run\n'
            f'  {tool_command("misc/check_dataset.py")} {file}\n'
            'with the same --cfg-options. If it lists none, look for the cause in the config.'
        )


def _single_value_error(batch_size: int | None) -> ConfigError:
    """Return the error about a BatchNorm layer that gets one value per channel."""
    cause = f'the last batch of an epoch has one image left (batch_size is {batch_size})'
    advice = 'set train_dataloader.drop_last=True, or another train_dataloader.batch_size'
    if batch_size == 1:
        cause = 'train_dataloader.batch_size is 1'
        advice = 'set train_dataloader.batch_size to 2 or more'
    return ConfigError(
        'BatchNorm cannot train on one value per channel, which is what a feature map of 1x1 '
        '(global pooling, as in UPerNet and PSPNet, or a small image) has for one image: '
        f"{cause}. To change it, {advice}; or train on several GPUs with sync_bn='torch'; or give "
        "these layers another norm, such as norm_cfg=dict(type='GN', num_groups=32)"
    )


def _can_be_data(error: Exception) -> bool:
    """Return whether `check_dataset.py` may find the cause of an error, by where it was raised."""
    message = str(error)
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or _GPU in message:
        return _GPU in message
    calls = [
        (frame.f_code.co_filename, frame.f_code.co_name)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    calls += _WORKER_FRAME.findall(message)  # The only place with the traceback of a worker.
    builds = [index for index, (path, _) in enumerate(calls) if path.endswith(_BUILDING)]
    pattern = _READING if builds else _HANDLING
    inside = calls[builds[-1] + 1 :] if builds else calls
    return any(pattern.search(f'{path}:{name}') for path, name in inside)
