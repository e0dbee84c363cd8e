"""Explains crashes of the host that the settings of a config cause."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config

from ..config import ConfigView
from ..errors import ConfigError
from .schedule import NEVER_STARTS, never_starts

_ONE_VALUE = 'Expected more than 1 value per channel'


@contextmanager
def explain_crashes(cfg: Config) -> Iterator[None]:
    """Turn crashes with a known cause into errors that say what to set.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: If BatchNorm got one value per channel, or a scheduler starts after the run.
    """
    try:
        yield
    except ValueError as error:
        if _ONE_VALUE in str(error):
            batch = ConfigView(cfg).loader('train').get('batch_size')
            raise single_value_error(batch, last=batch != 1) from error
        if NEVER_STARTS in str(error):
            raise never_starts(error) from error
        raise


def single_value_error(batch_size: int | None, last: bool) -> ConfigError:
    """Return the error about a BatchNorm layer that gets one value per channel.

    Args:
        batch_size: Images per GPU.
        last: Whether only the last batch of an epoch has a single image.
    """
    cause, advice = (
        f'train_dataloader.batch_size is {batch_size}',
        'set train_dataloader.batch_size to 2 or more',
    )
    if last:
        cause = f'the last batch of an epoch has one image left (batch_size is {batch_size})'
        advice = 'set train_dataloader.drop_last=True, or another train_dataloader.batch_size'
    return ConfigError(
        'BatchNorm cannot train on one value per channel, which is what a feature map of 1x1 '
        '(global pooling, as in UPerNet and PSPNet, or a small image) has for one image: '
        f"{cause}. To change it, {advice}; or train on several GPUs with sync_bn='torch'; or give "
        "these layers another norm, such as norm_cfg=dict(type='GN', num_groups=32)"
    )
