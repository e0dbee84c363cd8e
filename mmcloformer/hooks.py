"""Hooks that the tools add to the host's Runner."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .checkpoint import get_state_dict
from .errors import CheckpointError


@HOOKS.register_module()
class WholeCheckpointHook(Hook):
    """Refuse a checkpoint that does not fill the whole model.

    For testing and resuming, where the host would go on with whatever did not match left at
    its random initialisation.
    """

    # After the EMA hook, which swaps weights inside the checkpoint.
    priority = 'LOWEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare before the host loads.

        Raises:
            CheckpointError: If keys or shapes differ; names the first few.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        state_dict = get_state_dict(checkpoint, 'the checkpoint')
        given = {key: tuple(value.shape) for key, value in state_dict.items()}
        wrong = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
        if wrong:
            listed = '; '.join(
                f'{key}: model {own.get(key, "has none")}, checkpoint {given.get(key, "has none")}'
                for key in wrong[:5]
            )
            raise CheckpointError(
                f'the checkpoint is not of this config: {len(wrong)} of {len(own)} tensors '
                f'differ ({listed}). Use the config it was trained with.'
            )
