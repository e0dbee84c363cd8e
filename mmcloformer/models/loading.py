"""Loading weights into a backbone: all of them or none."""

import re
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ..errors import CheckpointError, join_first

_OUTPUT_NORM = re.compile(r'norm\d\.(weight|bias)')
_MOST_KEYS = 50  # in a message
# The training form has it, whatever the arch; the deploy form folds it into the next weights.
_FOLDED_KEY = 'stages.0.0.norm1.weight'
_KEPT_KEY = 'stages.0.0.attn.proj.weight'


def check_state(
    module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *args: Any
) -> None:
    """Refuse weights of the other form, then all that `check_backbone_state` refuses.

    A pre-hook of `load_state_dict`.

    Raises:
        CheckpointError: If the weights are of the other form, or do not fill the backbone.
    """
    if prefix + _KEPT_KEY in state_dict:
        of_training = prefix + _FOLDED_KEY in state_dict
        if module.deployed and of_training:
            raise CheckpointError(
                'the checkpoint is of the training form and this CloFormer is in its deploy '
                'form, nothing was loaded into it: load first, then call switch_to_deploy()'
            )
        if not module.deployed and not of_training:
            raise CheckpointError(
                'the checkpoint is of the deploy form, which cannot be trained, and this '
                'CloFormer is in its training form, nothing was loaded into it: call eval() '
                'and switch_to_deploy() before loading, or load the checkpoint it was made from'
            )
    check_backbone_state(module, state_dict, prefix, *args)


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
        f'{len(keys)} {what}: {join_first(keys, _MOST_KEYS)}'
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
            f"released code's format go through tools/model_converters/convert_checkpoint.py first."
        )
    loaded = len(own) - len(new_norms)
    fresh = f', new: {", ".join(sorted({k.split(".")[0] for k in new_norms}))}' if new_norms else ''
    print_log(f'{name}: loaded {loaded} of {len(own)} tensors{fresh}', logger='current')


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


def strip_wrapper_prefixes(key: str) -> str:
    """Remove the parts of a key that wrappers add: `module` (DistributedDataParallel, averaged
    models) and `_orig_mod` (torch.compile)."""
    return '.'.join(part for part in key.split('.') if part not in ('module', '_orig_mod'))
