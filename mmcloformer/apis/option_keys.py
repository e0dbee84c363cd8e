"""Applying `--cfg-options` to a config, and finding fields without effect."""

import ast
import copy
import inspect
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from ..config import walk
from ..errors import ConfigError, join_first

# What the hosts read from a config: the arguments of the Runner, and these.
_HOST_FIELDS = {
    *inspect.signature(Runner).parameters,
    'activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline',
} - {'cfg'}  # fmt: skip
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
    before = _without_scopes(cfg.to_dict())
    names = set(_HOST_FIELDS)
    if 'data_preprocessor' in (before.get('model') or {}):  # The model's own one wins.
        names.remove('data_preprocessor')
    read = {name: value for name, value in before.items() if name in names}
    unread = [option for option in options if _root(option) not in names]
    if cfg.get('runner_type', 'Runner') not in ('Runner', 'FlexibleRunner'):
        unread = []  # A Runner of another class may read fields of its own.
    warnings = [*_unknown_fields(before, read, unread)]
    try:
        cfg.merge_from_dict(copy.deepcopy(dict(options)))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f'--cfg-options: one of {", ".join(options)} does not fit the config ({error}). An '
            'entry of a list can be changed by its index, as a.0.b=value; to replace entries, set '
            'the whole list'
        ) from error
    after = _without_scopes(cfg.to_dict())
    known = [each for each in unread if _root(each) in before]
    changed = [each for each in known if before[_root(each)] != after[_root(each)]]
    return [*warnings, *_unread_variables(before, read, changed, options)]


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
        if scope is None and os.path.isfile(inherited):  # Else with a variable such as fileDirname.
            yield from _files(inherited)


def _without_scopes(value: Any) -> Any:
    """Remove the `_scope_` that mmengine adds to fields, but not to copies, of a host's config."""
    if isinstance(value, dict):
        return {key: _without_scopes(each) for key, each in value.items() if key != '_scope_'}
    return type(value)(map(_without_scopes, value)) if isinstance(value, (list, tuple)) else value


def _root(field: str) -> str:
    return field.partition('.')[0]


def _unknown_fields(
    before: Mapping[str, Any], read: Mapping[str, Any], unread: Iterable[str]
) -> Iterator[str]:
    """Yield warnings about fields that nothing has; raise where another field is meant.

    Args:
        before: The config without the options.
        read: The part of it that a host reads.
        unread: The options for other fields.
    """
    for option in unread:
        root, dot, rest = option.partition('.')
        if root in before:
            continue
        similar = get_close_matches(root, {*before, *_HOST_FIELDS} - {root}, 1, _SIMILAR)
        nested = _fields_inside(read, option)
        meant = [name + dot + rest for name in similar] + nested
        meant += [_OLD_FIELDS[root]] if root in _OLD_FIELDS else []
        problem = (
            f'--cfg-options {option}: no host reads a field {root!r} of this config, so it has no '
            'effect' + (f'; did you mean {meant[0]}?' if meant else '')
        )
        if similar or (dot and nested):
            raise ConfigError(problem)
        yield problem


def _unread_variables(
    before: Mapping[str, Any],
    read: Mapping[str, Any],
    changed: Iterable[str],
    options: Collection[str],
) -> Iterator[str]:
    """Yield warnings about changed variables of the config file, which was read before.

    There is none if all fields that were made of the variable are set too, as far as is known.

    Args:
        before: The config without the options.
        read: The part of it that a host reads.
        changed: The options that change variables.
        options: All options.
    """
    for option in changed:
        name = _root(option)
        made = _copies(read, name, before[name]) or _fields_inside(read, option)
        stale = [field for field in made if not any(_overlap(field, each) for each in options)]
        problem = f'--cfg-options {option}: no host reads this variable of the config file, '
        if stale:
            found = f'and the fields made of it keep its old value; set {join_first(stale, 4)}'
            yield problem + found
        elif not made:
            meant = _OLD_FIELDS.get(name, 'the fields that a host reads')
            yield f'{problem}so it has no effect unless your own code reads it; set {meant}'


def _overlap(one: str, other: str) -> bool:
    """Return whether two fields are the same, or one is inside the other."""
    return f'{one}.'.startswith(f'{other}.') or f'{other}.'.startswith(f'{one}.')


def _fields_inside(cfg: Mapping[str, Any], option: str) -> list[str]:
    return [node.field for node in walk(cfg) if node.field.endswith(f'.{option}')]


def _copies(cfg: Mapping[str, Any], name: str, old: Any) -> list[str]:
    """Return the fields that have a value of a variable, or a text that begins with it."""
    # Numbers are equal by chance, unless their fields have the same name.
    end = f'.{name}' if old is None or isinstance(old, (int, float)) else ''
    copies = [
        path
        for path, value, _ in walk(cfg)
        if '.' in path and path.endswith(end) and _is_made_of(value, old)
    ]
    # Name a copied list only, not its entries too.
    return [path for path in copies if path.rpartition('.')[0] not in copies]


def _is_made_of(value: Any, old: Any) -> bool:
    if isinstance(old, str) and len(old) > 1 and isinstance(value, str):
        return value.startswith(old)
    return type(value) is type(old) and bool(value == old)
