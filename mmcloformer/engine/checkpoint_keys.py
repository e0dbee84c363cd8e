"""Hooks around the loading of a checkpoint into the model of a Runner."""

import copy
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..checkpoint import check_whole_state, get_state_dict
from ..models.state_dict import (
    check_prefix,
    find_prefixes,
    find_state_dict,
    strip_wrapper_prefixes,
)

T = TypeVar('T')


@HOOKS.register_module()
class WrapperKeysHook(Hook):
    """Rename the keys of a checkpoint that differ from the model's by wrappers only.

    DistributedDataParallel, torch.compile and mmengine's averaged models add `module` and
    `_orig_mod` to the keys. The host removes a leading `module.` and would otherwise leave the
    weights of such keys at their initialisation. Weights that are the whole file, or under another
    key of `STATE_DICT_KEYS`, which the host does not read, are moved to `state_dict`.
    """

    # Before the EMA hook, which reads the state dict by key.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        """Rename the keys in `checkpoint`, before the host loads it.

        Raises:
            CheckpointError: If it holds a CloFormer under another prefix than the model's, which
                the host would not load: a backbone by itself, for example.
        """
        if not isinstance(checkpoint, dict) or not checkpoint:
            return
        if 'state_dict' not in checkpoint:
            key, _ = find_state_dict(checkpoint)
            if key:
                checkpoint['state_dict'] = checkpoint.pop(key)
            elif all(isinstance(value, Tensor) for value in checkpoint.values()):
                weights = copy.copy(checkpoint)
                checkpoint.clear()
                checkpoint['state_dict'] = weights
            else:
                return
        check_prefix(
            find_prefixes(runner.model.state_dict()), find_prefixes(checkpoint['state_dict'])
        )
        # The EMA hook and the Runner unwrap the model once.
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        checkpoint['state_dict'] = _rename_state(checkpoint['state_dict'], model)
        if isinstance(checkpoint.get('ema_state_dict'), Mapping):
            averaged = [f'module.{key}' for key in model.state_dict()]
            checkpoint['ema_state_dict'] = match_keys(checkpoint['ema_state_dict'], averaged)


@HOOKS.register_module()
class WholeCheckpointHook(Hook):
    """Refuse a checkpoint that does not fill the whole model.

    For testing and resuming, where the host would leave whatever does not match at its random
    initialisation.
    """

    # After the EMA hook, which swaps weights inside the checkpoint.
    priority = 'LOWEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare keys and shapes, before the host loads the checkpoint.

        Raises:
            CheckpointError: If keys or shapes differ; names the first few.
        """
        check_whole_model(runner.model, checkpoint, 'the checkpoint')


def check_whole_model(model: nn.Module, checkpoint: Any, source: str) -> dict[str, Tensor]:
    """Compare a checkpoint with a model; wrappers on either side are ignored.

    Args:
        model: A model, maybe wrapped for distributed training, test-time augmentation or by
            torch.compile.
        checkpoint: Content of a checkpoint file.
        source: Name of the file, for messages.

    Returns:
        The weights, with the keys of the unwrapped model.

    Raises:
        CheckpointError: If keys or shapes differ, or there are no weights.
    """
    model = unwrap_model(model)
    state_dict = match_keys(get_state_dict(checkpoint, source), model.state_dict().keys())
    check_whole_state(model, state_dict)
    return state_dict


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the model inside all wrappers into which mmengine loads a checkpoint."""
    while _is_wrapper(model):
        model = model.module  # type: ignore[assignment]
    return model


def match_keys(values: Mapping[str, T], wanted: Collection[str]) -> dict[str, T]:
    """Rename keys that differ from a wanted key only by the names of wrappers.

    Args:
        values: Values by key of a checkpoint.
        wanted: Keys of a model.

    Returns:
        The values. A key keeps its name if it is wanted, if no wanted key matches it, or if several
        keys match the same one.
    """
    wanted = set(wanted)
    by_name = _group(wanted)
    given = _group(values)
    renamed = {}
    for key, value in values.items():
        name = strip_wrapper_prefixes(key)
        candidates = by_name.get(name, [])
        is_unique = len(candidates) == 1 and len(given[name]) == 1
        renamed[candidates[0] if key not in wanted and is_unique else key] = value
    return renamed


def _group(keys: Collection[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(strip_wrapper_prefixes(key), []).append(key)
    return groups


def _rename_state(state_dict: Mapping[str, Tensor], model: nn.Module) -> Any:
    """Rename the keys of a state dict, and of its modules' versions, to those mmengine uses."""
    prefixes = _find_prefixes(model)
    wanted = []
    for key in model.state_dict():
        module, _, name = key.rpartition('.')
        wanted.append(prefixes.get(_dot(module), _dot(module)) + name)
    renamed: Any = copy.copy(state_dict)
    matched = match_keys(state_dict, wanted)
    renamed.clear()
    renamed.update(matched)
    if versions := getattr(state_dict, '_metadata', None):
        # A wrapper and the module in it have the same name; the module's key is longer.
        by_name = {strip_wrapper_prefixes(key): versions[key] for key in sorted(versions, key=len)}
        modules = [prefix.removesuffix('.') for prefix in prefixes.values()]
        renamed._metadata = OrderedDict(
            (module, by_name[name])
            for module in modules
            if (name := strip_wrapper_prefixes(module)) in by_name
        )
    return renamed


def _find_prefixes(module: nn.Module, prefix: str = '', host_prefix: str = '') -> dict[str, str]:
    """Return the prefixes of all modules' keys, and those with which mmengine loads them.

    mmengine's `load_state_dict` leaves out the `module` of a wrapper, but not that of a wrapper
    directly inside another, and not `_orig_mod`.
    """
    if _is_wrapper(module):
        module, prefix = module.module, f'{prefix}module.'  # type: ignore[assignment]
    prefixes = {prefix: host_prefix}
    for name, child in module._modules.items():
        if child is not None:
            prefixes |= _find_prefixes(child, f'{prefix}{name}.', f'{host_prefix}{name}.')
    return prefixes


def _dot(name: str) -> str:
    return f'{name}.' if name else ''


def _is_wrapper(module: nn.Module) -> bool:
    return is_model_wrapper(module) or isinstance(module, BaseTTAModel)
