"""Reading configs, and building and loading their models without a Runner."""

import copy
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader

from ..checks.channels import backbone_channels, check_channels
from ..checks.image import error_text
from ..config import BACKENDS, ConfigView, Entry
from ..errors import ConfigError
from ..models.state_dict import check_whole_model
from .option_keys import apply_options, old_fields


def read_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config; print warnings about fields and options without effect.

    Args:
        path: A file, or a host's own config such as `'mmdet::retinanet/...'`.
        options: Fields to override, as from `--cfg-options`.

    Raises:
        ConfigError: If the file or one of its bases does not exist or cannot be read, or as
            `apply_options`.
    """
    if '::' not in str(path) and not Path(path).is_file():
        raise ConfigError(f'config {path} does not exist')
    try:
        if '::' in str(path):
            cfg = Config.fromstring(f'_base_ = {str(path)!r}', '.py')
        else:
            cfg = Config.fromfile(path)
    except Exception as error:  # Any error of mmengine, or of the file's code.
        raise ConfigError(f'config {path} cannot be read: {error_text(error)}') from error
    warnings = [] if '::' in str(path) else [*old_fields(cfg, path)]
    for warning in [*warnings, *apply_options(cfg, options or {})]:
        if os.environ.get('RANK', '0') == '0':
            print(f'warning: {warning}', file=sys.stderr)
    return cfg


def build_model(cfg: Config) -> BaseModel:
    """Build the model of a config, without loading or initialising its weights.

    Args:
        cfg: Config of one of the three hosts, not changed; its scope becomes the default scope.

    Raises:
        ConfigError: If the config is of no host, or normalisation and backbone have other numbers
            of channels.
    """
    view = ConfigView(cfg)
    view.require_host()
    check_channels(cfg)
    init_default_scope(view.scope)
    settings = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:  # mmpretrain keeps it outside of the model.
        settings.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    model: BaseModel = MODELS.build(settings)
    return model


def load_trained(cfg: Config, checkpoint: str) -> tuple[BaseModel, dict[str, Any]]:
    """Build the model of a config in evaluation mode and load a checkpoint.

    Args:
        cfg: Config for mmdet, mmseg or mmpretrain; its host becomes the default scope.
        checkpoint: File, URL or `mmcloformer://NAME` with all weights of the model.

    Returns:
        The model and the `metainfo` of its data set, such as `classes`. It comes from the
        checkpoint if it contains that, otherwise from the data sets of the config.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not match the model.
        ConfigError: As `build_model`.
    """
    model = revert_sync_batchnorm(build_model(cfg))
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    model.load_state_dict(check_whole_model(model, loaded, checkpoint))
    return model.eval(), _find_metainfo(cfg, loaded)


def _find_metainfo(cfg: Config, loaded: Mapping[str, Any]) -> dict[str, Any]:
    meta = loaded.get('meta') or {}
    # Before version 1.0 of the hosts' common engine, the names stood in the meta data themselves.
    found = {key.lower(): value for key, value in (meta.get('dataset_meta') or meta).items()}
    if found.get('classes'):
        return found
    view = ConfigView(cfg)
    built = (view.build_lazily(each.entry) for each in view.datasets('test', 'val', 'train'))
    return next((dict(dataset.metainfo) for dataset in built if dataset is not None), {})


def inference_steps(cfg: Config) -> list[Entry]:
    """Return the steps of the test pipeline, without those that load annotations.

    They read files of this machine, wherever those of the test set are.

    Args:
        cfg: The whole config. One without a test set has the pipeline of its validation set.

    Raises:
        ConfigError: If it has neither.
    """
    view = ConfigView(cfg)
    dataset = next(view.datasets('test', 'val'), None)
    if dataset is None or not dataset.steps:
        raise ConfigError(
            'the config does not say how images are loaded: add a test_dataloader with '
            'dataset.pipeline (that of val_dataloader is used otherwise)'
        )
    return [
        step._replace(settings={k: v for k, v in step.settings.items() if k not in BACKENDS})
        for step in dataset.steps
        if not step.is_a(*view.annotation_loaders)
    ]


def image_channels(cfg: Config) -> int:
    """Return the number of channels of the images that the backbone takes.

    Args:
        cfg: The whole config, of any backbone.
    """
    backbone = cfg.model.get('backbone')
    given = backbone.get('in_channels') if isinstance(backbone, dict) else None
    return backbone_channels(ConfigView(cfg)) or (given if isinstance(given, int) else 3)
