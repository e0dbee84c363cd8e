"""Reading configs and building their models without a Runner."""

import copy
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from ..checks.channels import backbone_channels, check_channels
from ..config import HOSTS, ConfigView
from ..errors import ConfigError
from .option_keys import apply_options, old_fields


def read_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config; print warnings about fields and options without effect.

    Args:
        path: A file, or a host's own config such as `'mmdet::retinanet/...'`.
        options: Fields to override, as from `--cfg-options`.

    Raises:
        ConfigError: If the file does not exist, or as `apply_options`.
    """
    if '::' in str(path):
        cfg = Config.fromstring(f'_base_ = {str(path)!r}', '.py')
    elif Path(path).is_file():
        cfg = Config.fromfile(path)
    else:
        raise ConfigError(f'config {path} does not exist')
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
        ConfigError: If the config has no model, its `default_scope` is not one of the hosts, or
            normalisation and backbone have other numbers of channels.
    """
    scope = ConfigView(cfg).host
    if scope is None:
        raise ConfigError(
            'the config needs a model of a host and a default_scope, one of '
            f'{", ".join(HOSTS)}; default_scope is {cfg.get("default_scope")}'
        )
    check_channels(cfg)
    init_default_scope(scope)
    settings = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:  # mmpretrain keeps it outside of the model.
        settings.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    import_module(f'{scope}.models')
    model: BaseModel = import_module(f'{scope}.registry').MODELS.build(settings)
    return model


def image_channels(cfg: Config) -> int:
    """Return the number of channels of the images that the backbone takes.

    Args:
        cfg: The whole config, of any backbone.
    """
    backbone = cfg.model.get('backbone')
    given = backbone.get('in_channels') if isinstance(backbone, dict) else None
    return backbone_channels(ConfigView(cfg)) or (given if isinstance(given, int) else 3)
