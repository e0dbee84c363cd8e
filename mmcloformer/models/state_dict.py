"""State dicts: finding them in a checkpoint, and checking that they fill a model completely."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ..errors import CheckpointError, join_first, tool_command

# Of mmengine, whose EMAHook saves the averaged weights under the first key and the model's under
# `ema_state_dict`, of the released code and of timm. The first one that a file has is used.
STATE_DICT_KEYS = ('state_dict', 'model', 'ema_state_dict', 'model_ema', 'state_dict_ema')
_OUTPUT_NORM = re.compile(r'norm\d\.(weight|bias)')
_STEM_INPUT = 'stem.conv1.0.weight'
# The training form of every arch has the first key; the deploy form folds it into other weights.
_FOLDED_KEY = 'stages.0.0.norm1.weight'
_KEPT_KEY = 'stages.0.0.attn.proj.weight'
_RELEASED_KEY = 'patch_embed.conv5.weight'
_CONVERTER = tool_command('model_converters/convert_checkpoint.py')
# DistributedDataParallel and mmengine's AveragedModel add `module`, torch.compile `_orig_mod`.
_WRAPPERS = {'module', '_orig_mod'}
_AVERAGING_COUNTERS = ('steps', 'n_averaged')
_COUNTER = '.num_batches_tracked'
_MAX_KEYS = 4  # in a message

T = TypeVar('T')


def strip_wrapper_prefixes(key: str) -> str:
    """Remove the parts of a key that wrappers add: `module.a._orig_mod.b` becomes `a.b`.

    Args:
        key: Key of a state dict, or a prefix of keys that ends in a dot.
    """
    return '.'.join(part for part in key.split('.') if part not in _WRAPPERS)


def match_keys(values: Mapping[str, T], wanted: Iterable[str]) -> dict[str, T]:
    """Rename keys that differ from a wanted key only by the names of wrappers.

    Args:
        values: Values by key of a checkpoint.
        wanted: Keys of a model.

    Raises:
        CheckpointError: If two keys become equal.
    """
    wanted = set(wanted)
    by_name: dict[str, list[str]] = {}
    for key in wanted:
        by_name.setdefault(strip_wrapper_prefixes(key), []).append(key)
    renamed = {}
    for key, value in values.items():
        same = by_name.get(strip_wrapper_prefixes(key), [])
        renamed[same[0] if key not in wanted and len(same) == 1 else key] = value
    if len(renamed) < len(values):
        raise CheckpointError(
            "the checkpoint holds weights of two models, of which one has the prefix 'module.' or "
            "'_orig_mod.': save the state dict of one of them"
        )
    return renamed


def find_state_dict(loaded: Any, key: str | None = None) -> tuple[str, Any]:
    """Find the weights in the content of a checkpoint file.

    Args:
        loaded: A state dict, or a dict that holds one under one of `STATE_DICT_KEYS`.
        key: The key to take it from; by default the first of `STATE_DICT_KEYS` that holds a dict.

    Returns:
        The key, which is empty for `loaded` itself, and the value.
    """
    if key is not None:
        return key, loaded[key]
    if isinstance(loaded, Mapping):
        for key in STATE_DICT_KEYS:
            if isinstance(loaded.get(key), Mapping):
                return key, loaded[key]
    return '', loaded


def get_state_dict(loaded: Any, source: str, key: str | None = None) -> dict[str, Tensor]:
    """Return the weights of a loaded checkpoint, with keys as without wrappers.

    Logs which weights are taken from a file with several, such as a model and its average.

    Args:
        loaded: Content of a checkpoint file.
        source: Name of the file, for messages.
        key: As for `find_state_dict`.

    Raises:
        CheckpointError: If the key does not exist, there are no weights, or two keys become equal.
    """
    if key is not None and (not isinstance(loaded, Mapping) or key not in loaded):
        keys = join_first([*loaded], 20) if isinstance(loaded, Mapping) else 'none'
        raise CheckpointError(f'{source} has no key {key!r}; its keys: {keys}')
    key, state_dict = find_state_dict(loaded, key)
    is_mapping = isinstance(state_dict, Mapping)
    others = [k for k, v in state_dict.items() if not isinstance(v, Tensor)] if is_mapping else []
    if not is_mapping or not state_dict or others:
        found = f'; {others[0]} is {state_dict[others[0]]!r:.80}' if others and key else ''
        raise CheckpointError(
            f'{source} holds no state dict{key and f" under {key!r}"}{found}. Expected tensors by '
            f'name, by themselves or under one of the keys {join_first(STATE_DICT_KEYS)}'
        )
    more = [k for k in STATE_DICT_KEYS if key and k != key and k in loaded]
    if more and (key, more) != ('state_dict', ['ema_state_dict']):  # mmengine's own pair
        print_log(f'{source}: using {key!r}, not {join_first(more)}', logger='current')
    elif key.endswith('ema'):
        print_log(f'{source}: using {key!r}, an average of weights', logger='current')
    weights = {k: v for k, v in state_dict.items() if k not in _AVERAGING_COUNTERS}
    return match_keys(weights, map(strip_wrapper_prefixes, weights))


def load_pretrained(module: nn.Module, checkpoint: str, prefix: str | None = None) -> None:
    """Load a backbone from a classifier, a detector, a segmentor or a bare backbone.

    Args:
        module: The backbone.
        checkpoint: A path or URL that mmengine's `CheckpointLoader` understands.
        prefix: Prefix of the backbone's keys in the checkpoint; None detects `backbone.`.

    Raises:
        CheckpointError: If the file cannot be read or does not match the backbone.
    """
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    state_dict = get_state_dict(loaded, checkpoint)
    if prefix is None:
        prefix = 'backbone.' if any(k.startswith('backbone.') for k in state_dict) else ''
    else:
        prefix = strip_wrapper_prefixes(prefix and f'{prefix.removesuffix(".")}.')
    state_dict = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    try:
        _check_complete(module, module.state_dict(), state_dict)
        # Not strict: output norms may be new. The check above and the hook below are stricter.
        module.load_state_dict(state_dict, strict=False)
    except CheckpointError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from error


def check_before_load(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Refuse a state dict that would fill only a part of the backbone.

    This is a pre-hook of `load_state_dict`. It therefore also guards `load_from`, `--resume` and
    testing, where the host loads with `strict=False`. Output norms may be missing (they are new
    downstream) or left over (from another `out_indices`). A state dict without any weight of the
    backbone passes, and keys with the prefixes of wrappers are renamed to the module's.

    Args:
        module: The backbone.
        state_dict: Weights of the backbone or of a model around it; `load_state_dict` passes a
            copy.
        prefix: Prefix of the backbone's keys in `state_dict`.

    Raises:
        CheckpointError: If the weights are of the other form (training or deploy), or a weight is
            missing, unexpected or of another shape; names the first few.
    """
    own = module.state_dict()
    names = {strip_wrapper_prefixes(key): key for key in own}
    outer = strip_wrapper_prefixes(prefix)
    given: dict[str, Tensor] = {}
    for key in list(state_dict):
        plain = strip_wrapper_prefixes(key)
        if plain.startswith(outer) and plain.removeprefix(outer) not in _AVERAGING_COUNTERS:
            name = names.get(plain.removeprefix(outer), plain.removeprefix(outer))
            given[name] = state_dict[key]
            if name in own:
                state_dict[prefix + name] = state_dict.pop(key)
    # As built, without what a user added since, such as adapters.
    weights = cast(frozenset[str], module.weight_names)
    if weights.isdisjoint(map(strip_wrapper_prefixes, given)):
        check_prefix([outer + _KEPT_KEY], state_dict)
        if prefix and given and own.keys().isdisjoint(given):  # Weights of another backbone.
            _check_complete(module, own, given)
        return
    _check_form(module, given)
    _check_complete(module, own, given)
    for key in own.keys() - given.keys():
        if key.endswith(_COUNTER):
            given[key] = state_dict[prefix + key] = own[key]
    new = [key for key in own if key not in given]
    norms = ', '.join(sorted({key.split('.')[0] for key in new}))
    print_log(
        f'{type(module).__name__}: loaded {len(own) - len(new)} of {len(own)} tensors'
        f'{norms and f", new: {norms}"}',
        logger='current',
    )


def is_wrapper(module: nn.Module) -> bool:
    """Return whether mmengine loads a checkpoint into the `module` inside a module."""
    return is_model_wrapper(module) or isinstance(module, BaseTTAModel)


def check_whole_model(model: nn.Module, checkpoint: Any, source: str) -> dict[str, Tensor]:
    """Compare a checkpoint with a model; wrappers on either side are ignored.

    Args:
        model: A detector, segmentor or classifier, maybe wrapped for distributed training,
            test-time augmentation or by torch.compile.
        checkpoint: Content of a checkpoint file.
        source: Name of the file, for messages.

    Returns:
        The weights, with the keys of the unwrapped model.

    Raises:
        CheckpointError: If keys or shapes differ, or there are no weights; names the first few.
    """
    while is_wrapper(model):
        model = cast(nn.Module, model.module)
    own = model.state_dict()
    given = match_keys(get_state_dict(checkpoint, source), own)
    found = f'the model has {len(own)} tensors, the checkpoint {len(given)}'
    advice = 'Use the config it was trained with.'
    _check_equal(own, given, f'the checkpoint is not of this config: {found}', advice)
    return given


def describe_differences(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], optional: Iterable[str] = ()
) -> list[str]:
    """Describe how a state dict differs from a module's, one sentence part per kind.

    Args:
        own: State dict of the module.
        given: State dict to load.
        optional: Keys that only one of them may have.
    """
    allowed = set(optional)
    kinds = {
        # BatchNorm's own counter, which old files lack.
        'missing': [
            key
            for key in own
            if key not in given and key not in allowed and not key.endswith(_COUNTER)
        ],
        'unexpected': [key for key in given if key not in own and key not in allowed],
        'of another shape': [
            f'{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}'
            for key in own
            if key in given and given[key].shape != own[key].shape
        ],
    }
    return [
        f'{len(keys)} {kind}: {join_first(keys, _MAX_KEYS)}' for kind, keys in kinds.items() if keys
    ]


def _advise_on_channels(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Say how to adapt weights for images of another number of channels, if that differs."""
    for key in own.keys() & given.keys():
        wanted, found = own[key].shape, given[key].shape
        is_input = f'.{key}'.endswith(f'.{_STEM_INPUT}') and len(found) == len(wanted)
        if is_input and wanted[0] == found[0] and wanted[1] != found[1]:
            change = 'weight.sum(1, keepdim=True)'
            if wanted[1] > 1:
                factor = f' * {found[1]} / {wanted[1]}'
                change = f'weight.mean(1, keepdim=True).repeat(1, {wanted[1]}, 1, 1){factor}'
            return (
                f'The checkpoint is for images of {found[1]} channels, and in_channels is '
                f'{wanted[1]}: set in_channels={found[1]}, or adapt {key} in the checkpoint '
                f'first, for example by weight = {change}.'
            )
    return None


def check_prefix(own: Iterable[str], given: Iterable[str]) -> None:
    """Refuse weights of a CloFormer with another prefix than the model's, or of the released code.

    Args:
        own: Keys of the model.
        given: Keys of a state dict.

    Raises:
        CheckpointError: If both have CloFormers, and no prefix in common or not the same format.
    """
    expected, found, released = (
        {
            key.removesuffix(name)
            for key in map(strip_wrapper_prefixes, keys)
            if f'.{key}'.endswith(f'.{name}')
        }
        for keys, name in ((own, _KEPT_KEY), (given, _KEPT_KEY), (given, _RELEASED_KEY))
    )
    if expected and released:
        raise CheckpointError(
            f'the checkpoint is in the format of the released code; nothing was loaded. Convert it '
            f'with {_CONVERTER} first'
        )
    if expected and found and not expected & found:
        raise CheckpointError(
            f'the checkpoint holds the weights of a CloFormer under the prefix '
            f'{min(found)!r}, and they are expected under {min(expected)!r}; nothing '
            f"was loaded. Load a backbone by model.backbone.init_cfg=dict(type='Pretrained', "
            f'checkpoint=...), or rename the keys'
        )


def _check_complete(
    module: nn.Module, own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    norms = [key for key in {**own, **given} if _OUTPUT_NORM.fullmatch(key)]
    name = type(module).__name__
    advice = (
        'Check arch, in_channels and norm_cfg; convert weights in the format of the released '
        f'code with {_CONVERTER} first.'
    )
    problem = f'the checkpoint does not fit this {name}, nothing was loaded into it'
    _check_equal(own, given, problem, advice, norms)


def _check_equal(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    problem: str,
    advice: str,
    optional: Iterable[str] = (),
) -> None:
    if differences := describe_differences(own, given, optional):
        advice = _advise_on_channels(own, given) or advice
        raise CheckpointError(f'{problem}; {"; ".join(differences)}. {advice}')


def _check_form(module: nn.Module, given: Mapping[str, Tensor]) -> None:
    is_training_form = _FOLDED_KEY in given
    if _KEPT_KEY in given and module.deployed == is_training_form:
        forms = 'deploy', 'training'
        advice = 'load its source, or call eval() and switch_to_deploy() before loading'
        if is_training_form:
            forms, advice = ('training', 'deploy'), 'load first, then call switch_to_deploy()'
        raise CheckpointError(
            f'the checkpoint has the {forms[0]} form and this CloFormer the {forms[1]} form, '
            f'nothing was loaded into it: {advice}'
        )
