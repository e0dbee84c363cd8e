"""Loading a backbone's weights all or not at all."""

import re
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ..errors import CheckpointError, listed
from .reading import read_checkpoint

_OUTPUT_NORM = re.compile(r'norm\d\.(weight|bias)')
_MOST_KEYS = 50  # in a message


def check_backbone_state(
    module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: Any
) -> None:
    """Refuse a state dict that would fill only a part of the backbone.

    A pre-hook of `load_state_dict`, so it also guards `load_from`, `--resume` and testing,
    which the host loads with `strict=False`. The norms of the outputs may be absent (they are
    new downstream) or left over (another `out_indices`). A good load logs one line.

    Args:
        module: The backbone.
        state_dict: Weights of the backbone or of a model around it.
        prefix: Where in `state_dict` the backbone stands.

    Raises:
        CheckpointError: If a weight is missing, unexpected or of another shape; lists them.
    """
    own = module.state_dict()
    given = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    missing = [k for k in own if k not in given]
    new_norms = [k for k in missing if _OUTPUT_NORM.fullmatch(k)]
    missing = [k for k in missing if k not in new_norms]
    unexpected = [k for k in given if k not in own and not _OUTPUT_NORM.fullmatch(k)]
    mismatched = [
        f'{k} {tuple(given[k].shape)} instead of {tuple(own[k].shape)}'
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    problems = [
        f'{len(keys)} {what}: {listed(keys, _MOST_KEYS)}'
        for what, keys in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('of another shape', mismatched),
        )
        if keys
    ]
    name = type(module).__name__
    if problems:
        raise CheckpointError(
            f'the checkpoint does not fit this {name}, nothing was loaded into it; '
            f'{"; ".join(problems)}. Check arch, in_channels and norm_cfg; weights in the '
            f"released code's format go through tools/convert_checkpoint.py first."
        )
    loaded = len(own) - len(new_norms)
    fresh = f', new: {", ".join(sorted({k.split(".")[0] for k in new_norms}))}' if new_norms else ''
    print_log(f'{name}: loaded {loaded} of {len(own)} tensors{fresh}', logger='current')


def check_whole_state(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Refuse a state dict that does not fill the whole model, or holds more.

    Args:
        model: A detector, segmentor or classifier.
        state_dict: Weights for it.

    Raises:
        CheckpointError: If keys or shapes differ; names the first few.
    """
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
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


def load_pretrained(module: nn.Module, checkpoint: str, prefix: str | None = None) -> None:
    """Load a backbone from a classifier, a detector, a segmentor or a bare backbone.

    Args:
        module: The backbone.
        checkpoint: A path or URL that mmengine's `CheckpointLoader` understands.
        prefix: Where the backbone stands in the checkpoint; None finds `backbone.` by itself.

    Raises:
        CheckpointError: If the file cannot be read or does not match.
    """
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    state_dict = get_state_dict(loaded, checkpoint)
    if prefix is None:
        prefix = 'backbone.' if any(k.startswith('backbone.') for k in state_dict) else ''
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    state_dict = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    try:
        # Strictness is the pre-hook's: it alone knows that output norms may be new.
        module.load_state_dict(state_dict, strict=False)
    except CheckpointError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from error


def get_state_dict(loaded: Any, source: str) -> dict[str, Tensor]:
    """Take the weights out of what a checkpoint file held.

    Raises:
        CheckpointError: If there are none.
    """
    if isinstance(loaded, Mapping):
        for key in ('state_dict', 'model'):
            if isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
                break
    if (
        not isinstance(loaded, Mapping)
        or not loaded
        or not all(isinstance(v, Tensor) for v in loaded.values())
    ):
        raise CheckpointError(
            f'{source} holds no state dict; expected one by itself or under the key '
            f"'state_dict' or 'model'"
        )
    return {k.removeprefix('module.'): v for k, v in loaded.items()}


def read_state_dict(filename: str) -> dict[str, Tensor]:
    """Read the weights of a checkpoint file on disk.

    Raises:
        CheckpointError: If it cannot be read or holds none.
    """
    return get_state_dict(read_checkpoint(filename), filename)
