"""Applying `--cfg-options` to a config, and finding fields without effect."""

import ast
import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from ..config import walk
from ..errors import ConfigError, join_first

# What the hosts read from a config besides the arguments of the Runner.
_OTHER_FIELDS = (
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn',
    'test_pipeline', 'tta_model', 'tta_pipeline', 'vis_backends',
)  # fmt: skip
# Fields that the hosts read before mmengine (mmdet 2.x, mmseg 0.x, mmcls), and those of today.
_OLD_FIELDS = {
    'checkpoint_config': 'default_hooks.checkpoint',
    'cudnn_benchmark': 'env_cfg.cudnn_benchmark',
    'data': 'train_dataloader, val_dataloader and test_dataloader',
    'deterministic': 'randomness.deterministic',
    'dist_params': 'env_cfg.dist_cfg',
    'evaluation': 'val_evaluator and train_cfg.val_interval',
    'fp16': "optim_wrapper.type='AmpOptimWrapper'",
    'gpu_ids': 'CUDA_VISIBLE_DEVICES',
    'log_config': 'default_hooks.logger and visualizer',
    'lr_config': 'param_scheduler',
    'momentum_config': 'param_scheduler',
    'optimizer': 'optim_wrapper.optimizer',
    'optimizer_config': 'optim_wrapper, with clip_grad',
    'resume_from': 'load_from with resume=True',
    'runner': 'train_cfg',
    'seed': 'randomness.seed',
    'total_epochs': 'train_cfg.max_epochs',
    'total_iters': 'train_cfg.max_iters',
    'workflow': 'val_dataloader and val_cfg',
}
# Similarity from which a name counts as misspelt: `train_dataset` for `train_dataloader`.
_SIMILAR = 0.75
_MAX_FIELDS = 4  # in a message


def apply_options(cfg: Config, options: Mapping[str, Any]) -> list[str]:
    """Override fields of a config.

    Args:
        cfg: The config, changed in place.
        options: Values by key, as `parse_options` returns them.

    Returns:
        Warnings about options that may be without effect.

    Raises:
        ConfigError: If the first part of a key is no field of the config or of the hosts, and is
            similar to one or names a field inside another; or if an option does not fit the
            fields of the config.
    """
    warnings = [*_unknown_fields(cfg, options)]
    before = {key: value for key, value in cfg.to_dict().items() if key in map(_root, options)}
    try:
        cfg.merge_from_dict(copy.deepcopy(dict(options)))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        found = [problem for key in options if (problem := _misfit(cfg, key))]
        problem = found[0] if found else f'two of {", ".join(options)} contradict each other'
        raise ConfigError(f'--cfg-options {problem}') from error
    return [*warnings, *_stale_copies(cfg, before)]


def old_fields(cfg: Config, path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield warnings about fields of a config file that the hosts read before mmengine only.

    A name that its file itself uses, such as `optimizer` in `dict(optimizer=optimizer)`, is a
    variable. The hosts' own files are not looked at.

    Args:
        cfg: The config.
        path: Its file.
    """
    if 'runner_type' in cfg:  # A Runner of another class may read fields of its own.
        return
    for file in _files(str(path)):
        code = ast.parse(Path(file).read_text(encoding='utf-8'))
        names = [node for node in ast.walk(code) if isinstance(node, ast.Name)]
        used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        used |= {node.attr for node in ast.walk(code) if isinstance(node, ast.Attribute)}
        stored = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        for name in sorted(stored & _OLD_FIELDS.keys() & cfg.keys() - used):
            yield (
                f'{file} sets {name}, which no host reads since mmengine, so it has no effect; '
                f'set {_OLD_FIELDS[name]}'
            )


def _files(path: str) -> Iterator[str]:
    """Yield a Python file of a config and those that it inherits from, without the hosts' own."""
    if not path.endswith('.py'):
        return
    yield path
    for base in Config._get_base_files(path):
        inherited, scope = Config._get_cfg_path(base, path)
        if scope is None:
            yield from _files(inherited)


def _unknown_fields(cfg: Config, options: Mapping[str, Any]) -> Iterator[str]:
    known = [*cfg.keys(), *_host_fields()]
    for option in options:
        root = _root(option)
        if root in known:
            continue
        problem = f'--cfg-options {option}: neither this config nor a host has a field {root!r}'
        similar = get_close_matches(root, known, n=1, cutoff=_SIMILAR)
        nested = _find_nested(cfg, option)
        meant = similar[0] + option.removeprefix(root) if similar else nested
        # A Runner of another class may read fields of its own.
        is_hosts = cfg.get('runner_type', 'Runner') in ('Runner', 'FlexibleRunner')
        if is_hosts and (similar or (nested and '.' in option)):
            raise ConfigError(f'{problem}; did you mean {meant}?')
        meant = meant or _OLD_FIELDS.get(root)
        yield f'{problem}, so it has no effect' + (f'; did you mean {meant}?' if meant else '')


def _root(option: str) -> str:
    return option.partition('.')[0]


def _host_fields() -> list[str]:
    return [name for name in inspect.signature(Runner).parameters if name != 'cfg'] + [
        *_OTHER_FIELDS
    ]


def _find_nested(cfg: Config, option: str) -> str | None:
    """Return the full path of a nested field for a key that lacks the first part of it."""
    root, dot, rest = option.partition('.')
    paths = [node.field for node in walk(cfg.to_dict())]
    names = {path.rpartition('.')[2] for path in paths}
    for name in get_close_matches(root, sorted(names), n=3, cutoff=_SIMILAR):
        for path in paths:
            if f'.{path}'.endswith(f'.{name}') and (not rest or f'{path}.{rest}' in paths):
                return path + dot + rest
    return None


def _misfit(cfg: Config, option: str) -> str | None:
    """Return why an option cannot be merged, or None."""
    node: Any = cfg._cfg_dict
    parts = option.split('.')
    for index, part in enumerate(parts):
        path = '.'.join(parts[:index])
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                last = f' (0 to {len(node) - 1})' if node else ''
                return f'{option}: {path} is a list of {len(node)}{last}, {part!r} is no index'
            node = node[int(part)]
            if index == len(parts) - 1:
                return f'{option}: an entry of a list cannot be replaced alone; set {path}="[...]"'
        elif isinstance(node, dict):
            if part not in node:
                return None
            node = node[part]
        else:
            kind = 'a tuple; set all of it' if isinstance(node, tuple) else 'no group of fields'
            return f'{option}: {path} is {node!r}, {kind}'
    return None


def _stale_copies(cfg: Config, before: Mapping[str, Any]) -> Iterator[str]:
    """Find changed variables of the config file whose old values other fields still hold."""
    hosts, after = _host_fields(), cfg.to_dict()
    fields = [(node.field, node.value) for node in walk(after) if '.' in node.field]
    for key, old in before.items():
        if key in hosts or after[key] == old:
            continue
        copies = [path for path, value in fields if _root(path) != key and _is_made_of(value, old)]
        if isinstance(old, (int, float)) or old is None:
            copies = [path for path in copies if path.endswith(f'.{key}')]
        # Name a copied list only, not its entries too.
        copies = [path for path in copies if path.rpartition('.')[0] not in copies]
        if copies:
            yield (
                f'--cfg-options {key}: no host reads this variable of the config file, and the '
                f'fields made of it keep its old value; set {join_first(copies, _MAX_FIELDS)}'
            )


def _is_made_of(value: Any, old: Any) -> bool:
    if isinstance(old, str) and len(old) > 1 and isinstance(value, str):
        return value.startswith(old)
    return type(value) is type(old) and bool(value == old)
