"""Checks that loaded images, normalisation and backbone agree on the number of channels."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import ImgDataPreprocessor

from ..errors import ConfigError
from .fields import find_class, type_name

_HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
_HOST_PACKAGES = (*_HOSTS, 'mmcv', 'mmengine', 'mmcloformer')
# What the hosts' own preprocessors are named, and what they are by default.
_PREPROCESSORS = (
    'ImgDataPreprocessor', 'DetDataPreprocessor', 'SegDataPreProcessor', 'ClsDataPreprocessor',
)  # fmt: skip
_DEFAULT_PREPROCESSOR = {'mmpretrain': 'ClsDataPreprocessor'}
# They convert between BGR and RGB only what has three channels.
_CAREFUL = ('SegDataPreProcessor', 'ClsDataPreprocessor')
# Steps of a pipeline after which the number of channels is unknown here.
_CHANGING = ('Albu', 'Albumentations', 'ConcatCDInput')
_COLOR_TYPES = {1: 'grayscale', 3: 'color'}


class _Preprocessor(NamedTuple):
    """What a data preprocessor does with channels.

    Attributes:
        field: The field of the config.
        mean: Number of values of the mean, 1 without.
        std: Number of values of the standard deviation, 1 without.
        converts: The argument that exchanges the first and third channel, or an empty string.
        careful: Whether it does that only with three channels.
        any_number: Whether mean and std may have other than 1 or 3 values.
    """

    field: str
    mean: int
    std: int
    converts: str
    careful: bool
    any_number: bool

    def apply(self, channels: int) -> int | None:
        """Return the number of channels that come out, or None if it fails."""
        if self.converts and not self.careful:
            if channels < 3:
                return None
            channels = 3
        if not self.any_number and not {self.mean, self.std} <= {1, 3}:
            return None
        if not self.careful and self.mean == 3 != channels:
            return None
        numbers = {channels, self.mean, self.std} - {1}  # Numbers of 1 are broadcast.
        return None if len(numbers) > 1 else max(numbers, default=1)


def check_channels(cfg: Config, splits: Sequence[str]) -> None:
    """Check the number of channels from the image files to the backbone.

    Args:
        cfg: The whole config.
        splits: Which of `train`, `val` and `test` to check.

    Raises:
        ConfigError: If they disagree; the message lists the fields to set.
    """
    if problems := [*channel_problems(cfg, splits)]:
        raise ConfigError('\n'.join(problems))


def channel_problems(cfg: Config, splits: Sequence[str] = ()) -> Iterator[str]:
    """Compare the channels that pipelines load, those of the normalisation, and `in_channels`.

    Only what the hosts' own classes do is known; other loaders, steps, preprocessors and models
    around a CloFormer are left alone.

    Args:
        cfg: The whole config.
        splits: Splits whose pipelines are checked; without any, only the model is.

    Yields:
        For each split, or the model, the values found and those to set.
    """
    scope = cfg.get('default_scope')
    preprocessor = _read_preprocessor(cfg) if scope in _HOSTS and 'model' in cfg else None
    if preprocessor is None:
        return
    for field, wanted, parents in _backbones(cfg.model, 'model', ()):
        found = []
        for split in splits:
            loader = cfg.get(f'{split}_dataloader') or {}
            for steps in _pipelines(loader.get('dataset')):
                loaded = _loaded_channels(steps)
                channels = wanted if loaded is None else loaded
                if preprocessor.apply(channels) == wanted:
                    continue
                if loaded is None or are_hosts(steps, scope, 'datasets', 'TRANSFORMS'):
                    found.append((f'{split}_dataloader.dataset', loaded))
        if not splits and preprocessor.apply(wanted) != wanted:
            found.append(('', None))
        if found and are_hosts(parents, scope, 'models', 'MODELS'):
            yield from dict.fromkeys(
                _describe(where, loaded, preprocessor, field, wanted) for where, loaded in found
            )


def first_image_problems(cfg: Config, split: str, dataset: BaseDataset) -> Iterator[str]:
    """Load the first image of a data set as training does, and compare its number of channels.

    This finds what `channel_problems` cannot know, such as the bands of a TIFF file.

    Args:
        cfg: The whole config.
        split: `train`, `val` or `test`.
        dataset: A built data set of that split.

    Yields:
        As `channel_problems`; nothing if that finds a problem of this split, or the image cannot
        be loaded.
    """
    preprocessor = _read_preprocessor(cfg) if 'model' in cfg else None
    backbones = [*_backbones(cfg.model, 'model', ())] if preprocessor else []
    if not preprocessor or not backbones or [*channel_problems(cfg, (split,))]:
        return
    try:
        image = dataset[0]['inputs']
    except Exception:  # Any error of the host, which the examination of the files reports.
        return
    for field, wanted, parents in backbones if getattr(image, 'ndim', 0) == 3 else ():
        given = preprocessor.apply(image.shape[0])
        if given != wanted and are_hosts(parents, cfg.default_scope, 'models', 'MODELS'):
            yield _describe(f'{split}_dataloader.dataset', len(image), preprocessor, field, wanted)


def backbone_channels(cfg: Config) -> int | None:
    """Return the `in_channels` of the first CloFormer of a config, or None without one."""
    return next((channels for _, channels, _ in _backbones(cfg.model, 'model', ())), None)


def _read_preprocessor(cfg: Config) -> _Preprocessor | None:
    """Return what the data preprocessor does, or None if it is not one of the hosts' own."""
    settings, field = cfg.model.get('data_preprocessor'), 'model.data_preprocessor'
    if not settings:
        settings, field = cfg.get('data_preprocessor'), 'data_preprocessor'
    while isinstance(settings, Mapping) and 'data_preprocessor' in settings:  # mmdet's branches
        settings, field = settings['data_preprocessor'], f'{field}.data_preprocessor'
    settings = settings or {}
    if not isinstance(settings, Mapping):
        return None
    kind = settings.get('type') or _DEFAULT_PREPROCESSOR.get(cfg.default_scope, 'BaseData')
    name = type_name(kind)
    mean, std = settings.get('mean'), settings.get('std')
    if name not in _PREPROCESSORS or not all(_is_list(value) for value in (mean, std)):
        return None
    numbers = [1 if value is None else len(value) for value in (mean, std)]
    any_number = name in _CAREFUL
    if name == 'SegDataPreProcessor' and not {*numbers} <= {1, 3}:
        # A subclass in one of the two host stacks.
        own = import_module('mmseg.models.data_preprocessor').SegDataPreProcessor
        any_number = not issubclass(own, ImgDataPreprocessor)
    converts = [key for key in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb') if settings.get(key)]
    return _Preprocessor(
        field=field,
        mean=numbers[0],
        std=numbers[1],
        converts=converts[0] if converts else '',
        careful=name in _CAREFUL,
        any_number=any_number,
    )


def _is_list(value: Any) -> bool:
    return value is None or (isinstance(value, (list, tuple)) and bool(value))


def _backbones(
    node: Any, path: str, parents: tuple[Any, ...]
) -> Iterator[tuple[str, int, tuple[Any, ...]]]:
    """Yield field and channels of every CloFormer, and the settings of the models around it."""
    if isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping):
        return
    if type_name(node.get('type')) == 'CloFormer':
        channels = node.get('in_channels', 3)
        if isinstance(channels, int) and channels > 0:
            yield f'{path}.in_channels', channels, parents
        return
    around = (*parents, node) if 'type' in node else parents
    for key, child in node.items():
        yield from _backbones(child, f'{path}.{key}', around)


def _pipelines(dataset: Any, after: Sequence[Any] = ()) -> Iterator[list[Any]]:
    """Yield the steps that the images of each data set pass, those of wrappers included."""
    if not isinstance(dataset, Mapping):
        return
    steps = [*(dataset.get('pipeline') or ()), *after]
    inner = [*(dataset.get('datasets') or ()), dataset.get('dataset')]
    if inner == [None]:
        yield steps
    for each in inner:
        yield from _pipelines(each, steps)


def _loaded_channels(steps: Sequence[Any]) -> int | None:
    """Return the channels of the images that leave a pipeline, or None if that is not known."""
    if not all(isinstance(step, Mapping) and 'type' in step for step in steps):
        return None
    names = [type_name(step['type']) for step in steps]
    loaders = [name for name in names if name.startswith('Load') and 'Annotation' not in name]
    if loaders != ['LoadImageFromFile'] or names[0] != loaders[0]:
        return None
    loader = steps[0]
    color = loader.get('color_type', 'color')
    if loader.get('imdecode_backend') == 'tifffile' or not isinstance(color, str):
        return None
    channels = {'color': 3, 'grayscale': 1}.get(color.removesuffix('_ignore_orientation'))
    for name, step in zip(names, steps):
        if name in _CHANGING or (name == 'RandomGrayscale' and not step.get('keep_channels')):
            return None
        if name == 'RGB2Gray':
            channels = step.get('out_channels') or 3
    return channels


def are_hosts(settings: Sequence[Any], scope: str, package: str, registry: str) -> bool:
    """Return whether all classes are the hosts' own, and no step holds others.

    Args:
        settings: Configs with a `type` each.
        scope: The host.
        package: The host's package that registers the classes.
        registry: Name of the registry.
    """
    import_module(f'{scope}.{package}')
    classes = [find_class(each['type'], scope, registry) for each in settings]
    modules = {getattr(each, '__module__', '').partition('.')[0] for each in classes}
    return modules <= {*_HOST_PACKAGES} and not any('transforms' in each for each in settings)


def _describe(
    where: str, loaded: int | None, preprocessor: _Preprocessor, field: str, wanted: int
) -> str:
    field_of = preprocessor.field
    found = [f'{field}={wanted}']
    if loaded is not None:
        found.insert(0, f'{where}.pipeline loads images of {loaded} channel{"s" * (loaded > 1)}')
    changes = []
    if loaded not in (None, wanted):
        color = _COLOR_TYPES.get(wanted, 'unchanged')
        changes.append(f"color_type='{color}' of LoadImageFromFile (or other files)")
    values = {preprocessor.mean, preprocessor.std}
    if values - {1, wanted} or not (preprocessor.any_number or values <= {1, 3}):
        found.append(
            f'{field_of} has a mean of {preprocessor.mean} and a std of {preprocessor.std} values'
        )
        if preprocessor.any_number or wanted == 3:
            changes.append(f'mean and std of {wanted} value{"s" * (wanted > 1)}')
        else:
            changes.append('mean and std of 1 value, or None')
    if preprocessor.converts and not preprocessor.careful and wanted != 3:
        found.append(f'{field_of}.{preprocessor.converts}=True')
        changes.append(f'{preprocessor.converts}=False')
    given = None if loaded is None else preprocessor.apply(loaded)
    otherwise = f', or {field}={given}' if given else ''
    return (
        f'the numbers of channels disagree: {", ".join(found)}; set {", ".join(changes)}{otherwise}'
    )
