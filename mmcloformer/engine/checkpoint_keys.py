"""Hooks around the loading of a checkpoint into the model of a Runner."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..models.state_dict import (
    check_prefix,
    check_whole_model,
    find_state_dict,
    is_wrapper,
    match_keys,
)


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
            CheckpointError: If it holds a CloFormer under another prefix than the model's, such as
                a backbone by itself, or weights of the released code. The host would load neither.
        """
        if not isinstance(checkpoint, dict) or not checkpoint:
            return
        if 'state_dict' not in checkpoint:
            key, weights = find_state_dict(checkpoint)
            if key:
                del checkpoint[key]
            elif all(isinstance(value, Tensor) for value in checkpoint.values()):
                weights = dict(checkpoint)
                checkpoint.clear()
            else:
                return
            checkpoint['state_dict'] = weights
        check_prefix(runner.model.state_dict(), checkpoint['state_dict'])
        # The EMA hook and the Runner unwrap the model once.
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        renamed = match_keys(checkpoint['state_dict'], _host_keys(model))
        if renamed.keys() != checkpoint['state_dict'].keys():
            checkpoint['state_dict'] = renamed
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


def _host_keys(model: nn.Module) -> Iterator[str]:
    """Yield the keys with which mmengine loads a model: without the `module` of wrappers."""
    wrappers = [
        f'{name}.' if name else '' for name, module in model.named_modules() if is_wrapper(module)
    ]
    for key in model.state_dict():
        for outer in reversed(wrappers):  # The inner ones first.
            if key.startswith(f'{outer}module.'):
                key = outer + key.removeprefix(f'{outer}module.')
        yield key
