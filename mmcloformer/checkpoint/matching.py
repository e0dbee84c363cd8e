"""Comparing a checkpoint with a whole model."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import CheckpointError
from ..models.loading import (
    channel_advice,
    describe_differences,
    get_state_dict,
    strip_wrapper_prefixes,
)
from .reading import read_checkpoint


def check_whole_state(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Raise an error unless a state dict has exactly the keys and shapes of a model.

    Args:
        model: A detector, segmentor or classifier.
        state_dict: Weights to compare.

    Raises:
        CheckpointError: If keys or shapes differ; names the first few.
    """
    own = {strip_wrapper_prefixes(key): value for key, value in model.state_dict().items()}
    given = {strip_wrapper_prefixes(key): value for key, value in state_dict.items()}
    if problems := describe_differences(own, given):
        advice = channel_advice(own, given) or 'Use the config it was trained with.'
        raise CheckpointError(
            f'the checkpoint is not of this config: the model has {len(own)} tensors, the '
            f'checkpoint {len(given)}; {"; ".join(problems)}. {advice}'
        )


def read_state_dict(filename: str) -> dict[str, Tensor]:
    """Read the weights of a checkpoint file on disk.

    Raises:
        CheckpointError: If it cannot be read or holds none.
    """
    return get_state_dict(read_checkpoint(filename), filename)
