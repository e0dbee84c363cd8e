"""Checks that loaded images, normalisation and backbone agree on the number of channels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile, RandomGrayscale
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import MODELS

from ..config import ConfigView, Entry, are_in_hosts
from ..errors import ConfigError
from ..models import CloFormer
from .image import error_text
from .problem import Problem, render

# Steps of the hosts, besides mmcv's, that change the number of channels.
_CHANGING = ('Albu', 'Albumentations', 'ConcatCDInput', 'RGB2Gray')
_COLOR_TYPES = {1: 'grayscale', 3: 'color'}
_CONVERSIONS = ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')


def check_channels(cfg: Config, splits: Sequence[str] = ()) -> None:
    """Check that pipelines, normalisation and backbone agree on the number of channels.

    Args:
        cfg: The whole config.
        splits: Splits whose pipelines are checked; without any, only the model is.

    Raises:
        ConfigError: If they disagree; the message lists the fields to set.
    """
    if problems := render(channel_problems(ConfigView(cfg), splits)):
        raise ConfigError('\n'.join(problems))


def channel_problems(view: ConfigView, splits: Sequence[str] = ()) -> Iterator[Problem]:
    """Compare the channels that pipelines load, those of the normalisation, and `in_channels`.

    The number of channels after normalisation is found by running the preprocessor. Custom steps,
    preprocessors and models whose effect on the channels is unknown are not checked.

    Args:
        view: The config.
        splits: Splits whose pipelines are checked; without any, only the model is.
    """
    if not splits:
        yield from _disagreements(view, view.preprocessor().field, None)
    for dataset in view.datasets(*splits):
        where = f'{dataset.entry.field}.pipeline'
        yield from _disagreements(view, where, _loaded_channels(view, dataset.steps))


def first_image_problems(view: ConfigView, field: str, dataset: BaseDataset) -> Iterator[Problem]:
    """Load the first image of a data set as training does, and compare its number of channels.

    This finds steps that fail, and what `channel_problems` cannot know, such as the bands of a TIFF
    file.
    """
    try:
        sample = dataset[0]
    except Exception as error:  # Any error of the host's steps, or of the user's.
        found = f'a step fails on the first sample, whose file is good ({error_text(error)})'
        yield Problem(f'{field}.pipeline', found, 'correct its steps')
        return
    image = sample.get('inputs') if isinstance(sample, Mapping) else None
    if image is not None and getattr(image, 'ndim', 0) == 3:
        yield from _disagreements(view, f'{field}.pipeline', len(image))


def backbone_channels(view: ConfigView) -> int | None:
    """Return the `in_channels` of the first CloFormer of a config, or None without one."""
    return next((node.value.get('in_channels', 3) for node in view.parts(CloFormer)), None)


def _disagreements(view: ConfigView, where: str, loaded: int | None) -> Iterator[Problem]:
    """Yield which backbones do not get their number of channels, and what to set.

    Args:
        view: The config.
        where: Field of the pipeline, or of the preprocessor.
        loaded: Number of channels of the images; None if it is unknown.
    """
    preprocessor = view.preprocessor()
    settings, field = preprocessor.settings, preprocessor.field
    off = dict.fromkeys(('mean', 'std')) | dict.fromkeys(_CONVERSIONS, False)
    neutral = {key: value for key, value in off.items() if key in settings}
    lengths = [np.size(settings.get(key) or 0) for key in ('mean', 'std')]
    for backbone, wanted in _backbones(view):
        channels = wanted if loaded is None else loaded
        known = _normalised(view, wanted, neutral) == wanted
        if not known or (given := _normalised(view, channels)) == wanted:
            continue
        found, advice = [f'{backbone}={wanted}'], []
        if channels != wanted:
            color = _COLOR_TYPES.get(wanted, 'unchanged')
            advice.append(f"color_type='{color}' of LoadImageFromFile (or other files)")
        converting = [key for key in _CONVERSIONS if settings.get(key)]
        if _normalised(view, wanted, dict.fromkeys(converting, False)) != wanted:
            found.append(f'{field} has a mean of {lengths[0]} and a std of {lengths[1]} values')
            advice.append(
                f'mean and std of {wanted} value{"s" * (wanted > 1)}'
                if wanted in _COLOR_TYPES
                else 'mean and std of 1 value, or None'
            )
        if wanted != 3:
            found += [f'{field}.{key}=True' for key in converting]
            advice += [f'{key}=False' for key in converting]
        if loaded is not None:
            found.insert(0, f'images of {loaded} channel{"s" * (loaded > 1)}')
        otherwise = f', or {backbone}={given}' if given and loaded is not None else ''
        yield Problem(
            where,
            f'the numbers of channels disagree: {", ".join(found)}',
            f'set {", ".join(advice)}{otherwise}',
        )


def _normalised(
    view: ConfigView, channels: int, changes: Mapping[str, Any] | None = None
) -> int | None:
    """Return the number of channels that the preprocessor returns, or None if it fails."""
    preprocessor, images = view.preprocessor(), torch.zeros(1, channels, 8, 8)
    data = dict(inputs=images if view.host == 'mmpretrain' else [*images], data_samples=None)
    settings = {**preprocessor.settings, **(changes or {}), 'type': preprocessor.kind}
    try:
        return int(MODELS.build(settings)(data)['inputs'][0].shape[-3])
    except Exception:  # Whatever the host raises for settings or images that do not fit.
        return None


def _backbones(view: ConfigView) -> Iterator[tuple[str, int]]:
    """Yield field and channels of every CloFormer inside of the hosts' own models."""
    for node in view.parts(CloFormer):
        channels = node.value.get('in_channels', 3)
        around = [view.entry(each, '', 'MODELS') for each in node.parents]
        if are_in_hosts(around) and isinstance(channels, int) and channels > 0:
            yield f'{node.field}.in_channels', channels


def _loaded_channels(view: ConfigView, steps: Sequence[Entry]) -> int | None:
    """Return the channels of the images that leave a pipeline, or None if that is not known."""
    if not steps or steps[0].kind is not LoadImageFromFile or not are_in_hosts(steps):
        return None
    loader = steps[0].settings
    color = loader.get('color_type', 'color')
    if loader.get('imdecode_backend') == 'tifffile' or not isinstance(color, str):
        return None
    changing = {view.resolve(f'{view.host}.{name}', 'TRANSFORMS') for name in _CHANGING}
    changing |= {LoadImageFromFile, RandomGrayscale}
    if any(step.kind in changing for step in steps[1:]):
        return None
    return {'color': 3, 'grayscale': 1}.get(color.removesuffix('_ignore_orientation'))
