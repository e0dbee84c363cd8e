"""From a config file to the model that a Runner would build of it, for what needs no Runner."""

import copy
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from ..errors import ConfigError

SCOPES = ('mmdet', 'mmseg', 'mmpretrain')


def read_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config.

    Args:
        path: A file, or a host's own as `'mmdet::retinanet/...'`.
        options: What `--cfg-options` says.

    Raises:
        ConfigError: If there is no such file.
    """
    if '::' in str(path):
        cfg = Config.fromstring(f'_base_ = {str(path)!r}', '.py')
    elif Path(path).is_file():
        cfg = Config.fromfile(path)
    else:
        raise ConfigError(f'config {path} does not exist')
    cfg.merge_from_dict(dict(options or {}))
    return cfg


def build_model(cfg: Config) -> BaseModel:
    """Build a config's model; weights are not loaded or initialised.

    Args:
        cfg: Config of any of the three hosts, which stays as it is; its scope becomes the default.

    Raises:
        ConfigError: If the config is of no host, or has no model.
    """
    scope = cfg.get('default_scope')
    if 'model' not in cfg or scope not in SCOPES:
        raise ConfigError(
            f'the config needs a model and a default_scope out of {", ".join(SCOPES)}; '
            f'default_scope is {scope}'
        )
    init_default_scope(scope)
    settings = copy.deepcopy(cfg.model)
    if preprocessor := preprocessor_of(cfg):
        settings.data_preprocessor = copy.deepcopy(preprocessor)
    import_module(f'{scope}.models')
    model: BaseModel = import_module(f'{scope}.registry').MODELS.build(settings)
    return model


def preprocessor_of(cfg: Config) -> ConfigDict:
    """The config of the data preprocessor, which mmpretrain's configs have beside the model."""
    return cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or ConfigDict()
