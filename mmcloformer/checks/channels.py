"""Checks that loaded images, normalisation and backbone agree on the number of channels."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import combinations
from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile, RandomGrayscale
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from ..config import ConfigView, Entry, are_in_hosts
from ..errors import ConfigError
from ..models import CloFormer
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
    preprocessor = _Preprocessor(view)
    for field, wanted in _backbones(view):
        if not preprocessor.is_known(wanted):
            continue
        if not splits and preprocessor.apply(wanted) != wanted:
            yield preprocessor.problem(preprocessor.entry.field, None, field, wanted)
        for dataset in view.datasets(*splits):
            loaded = _loaded_channels(view, dataset.steps)
            if preprocessor.apply(wanted if loaded is None else loaded) != wanted:
                where = f'{dataset.entry.field}.pipeline'
                yield preprocessor.problem(where, loaded, field, wanted)


def first_image_problems(view: ConfigView, split: str, dataset: BaseDataset) -> Iterator[Problem]:
    """Load the first image of a data set as training does, and compare its number of channels.

    This finds what `channel_problems` cannot know, such as the bands of a TIFF file.

    Args:
        view: The config.
        split: `train`, `val` or `test`.
        dataset: A built data set of that split.

    Yields:
        Nothing if `channel_problems` finds a problem of this split, or the image cannot be loaded.
    """
    backbones = [*_backbones(view)]
    if not backbones or [*channel_problems(view, (split,))]:
        return
    try:
        image = dataset[0]['inputs']
    except Exception:  # Any error of the host; examining the sample reports it.
        return
    preprocessor = _Preprocessor(view)
    for field, wanted in backbones if getattr(image, 'ndim', 0) == 3 else ():
        if preprocessor.is_known(wanted) and preprocessor.apply(len(image)) != wanted:
            where = f'{split}_dataloader.dataset.pipeline'
            yield preprocessor.problem(where, len(image), field, wanted)


def backbone_channels(view: ConfigView) -> int | None:
    """Return the `in_channels` of the first CloFormer of a config, or None without one."""
    return next((node.value.get('in_channels', 3) for node in view.parts(CloFormer)), None)


class _Preprocessor:
    """The data preprocessor of a config, as a function of the number of channels."""

    def __init__(self, view: ConfigView) -> None:
        self.entry = view.preprocessor()
        self._host = view.host

    def apply(self, channels: int, **changes: Any) -> int | None:
        """Return the number of channels that come out, or None if it fails.

        Args:
            channels: Number of channels of an image.
            **changes: Settings of the preprocessor to try instead of its own.
        """
        images = torch.zeros(1, channels, 8, 8)
        data = dict(inputs=images if self._host == 'mmpretrain' else [*images], data_samples=None)
        try:
            models = import_module(f'{self._host}.registry').MODELS
            settings = {**self.entry.settings, **changes, 'type': self.entry.kind}
            inputs = models.build(settings)(data)['inputs']
            return int(inputs[0].shape[-3])
        except Exception:  # Whatever the host raises for settings or images that do not fit.
            return None

    def is_known(self, channels: int) -> bool:
        """Return whether its effect on the number of channels is known if it does not normalise."""
        neutral = dict.fromkeys(('mean', 'std'), None) | dict.fromkeys(_CONVERSIONS, False)
        given = {key: value for key, value in neutral.items() if key in self.entry.settings}
        return self.apply(channels, **given) == channels

    def problem(self, where: str, loaded: int | None, backbone: str, wanted: int) -> Problem:
        """Return a disagreement and the fewest changes that resolve it.

        Args:
            where: Field of the pipeline, or of the preprocessor.
            loaded: Number of channels of the images; None if it is unknown.
            backbone: Field of the backbone.
            wanted: Its `in_channels`.
        """
        settings, field = self.entry.settings, self.entry.field
        lengths = [len(settings.get(key) or [0]) for key in ('mean', 'std')]
        normalisation = f'{field} has a mean of {lengths[0]} and a std of {lengths[1]} values'
        color = _COLOR_TYPES.get(wanted, 'unchanged')
        values = f'{wanted} value{"s" * (wanted > 1)}'
        # Possible changes: the settings to try, the current value, the advice.
        choices: list[tuple[dict[str, Any], str, str]] = [
            (
                dict(channels=wanted),
                '',
                f"color_type='{color}' of LoadImageFromFile (or other files)",
            ),
            (_normalisation(wanted), normalisation, f'mean and std of {values}'),
            (_normalisation(1), normalisation, 'mean and std of 1 value, or None'),
            *(
                ({key: False}, f'{field}.{key}=True', f'{key}=False')
                for key in _CONVERSIONS
                if settings.get(key)
            ),
        ]  # fmt: skip
        start = dict(channels=wanted if loaded is None else loaded)
        if loaded in (None, wanted):
            del choices[0]
        several = (each for size in (1, 2, 3) for each in combinations(choices, size))
        for chosen in several:
            if self.apply(**_merged(start, *(each for each, _, _ in chosen))) == wanted:
                break
        else:
            chosen = ()
        found = [f'{backbone}={wanted}', *(now for _, now, _ in chosen if now)]
        if loaded is not None:
            found.insert(0, f'images of {loaded} channel{"s" * (loaded > 1)}')
        given = None if loaded is None else self.apply(loaded)
        otherwise = f', or {backbone}={given}' if given else ''
        return Problem(
            where,
            f'the numbers of channels disagree: {", ".join(found)}',
            f'set {", ".join(advice for _, _, advice in chosen)}{otherwise}',
        )


def _normalisation(values: int) -> dict[str, Any]:
    return dict(mean=[0.0] * values, std=[1.0] * values)


def _merged(*several: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for each in several for key, value in each.items()}


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
