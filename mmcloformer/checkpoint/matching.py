"""Compares a checkpoint with a whole model."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import CheckpointError
from ..models.loading import get_state_dict
from .reading import read_checkpoint


def check_whole_state(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Raise an error unless a state dict has exactly the keys and shapes of a model.

    Args:
        model: A detector, segmentor or classifier.
        state_dict: Weights to compare.

    Raises:
        CheckpointError: If keys or shapes differ; names the first few.
    """
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state_dict.items()}
    wrong = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
    if wrong:
        examples = '; '.join(
            f'{key}: model {own.get(key, "has none")}, checkpoint {given.get(key, "has none")}'
            for key in wrong[:5]
        )
        raise CheckpointError(
            f'the checkpoint is not of this config: {len(wrong)} of {len(own)} tensors '
            f'differ ({examples}). Use the config it was trained with.'
        )


def read_state_dict(filename: str) -> dict[str, Tensor]:
    """Read the weights of a checkpoint file on disk.

    Raises:
        CheckpointError: If it cannot be read or holds no weights.
    """
    return get_state_dict(read_checkpoint(filename), filename)
