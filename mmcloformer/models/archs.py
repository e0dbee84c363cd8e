"""The published variants of CloFormer and the check of a user's own."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError

NUM_STAGES = 4


class Arch(NamedTuple):
    """One variant; every field but the last has an entry for each of the four stages.

    Attributes:
        embed_dims: Channels.
        depths: Blocks.
        num_heads: Attention heads.
        group_splits: Heads of each local branch, then of the global one; their sum is the
            stage's `num_heads`, and a zero leaves the branch out.
        kernel_sizes: Depthwise kernel of each local branch.
        drop_path_rate: Rate of the last block, of [0, 1); it rises to that from 0.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    group_splits: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    drop_path_rate: float = 0.0


_XXS = Arch(
    embed_dims=(32, 64, 128, 256),
    depths=(2, 2, 6, 2),
    num_heads=(4, 4, 8, 16),
    group_splits=((3, 1), (2, 2), (4, 4), (4, 12)),
    kernel_sizes=((3,), (5,), (7,), (9,)),
)

# Source: Table 1 of the paper for the sizes, its ablation of the branches for the other two.
ARCHS: dict[str, Arch] = {
    'xxs': _XXS,
    'xs': _XXS._replace(
        embed_dims=(48, 96, 160, 352),
        num_heads=(3, 6, 10, 22),
        group_splits=((2, 1), (3, 3), (5, 5), (7, 15)),
        drop_path_rate=0.06,
    ),
    's': _XXS._replace(
        embed_dims=(64, 128, 224, 448),
        num_heads=(4, 8, 14, 28),
        group_splits=((3, 1), (4, 4), (7, 7), (7, 21)),
        drop_path_rate=0.06,
    ),
    'xxs-global': _XXS._replace(group_splits=((0, 4), (0, 4), (0, 8), (0, 16))),
    'xxs-local': _XXS._replace(group_splits=((4, 0), (4, 0), (8, 0), (16, 0))),
}


def resolve_arch(arch: str | Mapping[str, Any]) -> Arch:
    """Look up a variant by name, or check one given as a dict with the fields of `Arch`.

    Raises:
        ConfigError: If the name is unknown, or a field is missing, unknown or does not fit the
            others; the message names the field and what is allowed.
    """
    if isinstance(arch, str) and arch in ARCHS:
        return ARCHS[arch]
    if not isinstance(arch, Mapping):
        raise ConfigError(
            f'arch={arch!r} is unknown; use one of {sorted(ARCHS)} or a dict with the keys '
            f'{list(Arch._fields)}'
        )
    fields = set(Arch._fields)
    unknown, missing = set(arch) - fields, fields - set(arch) - {'drop_path_rate'}
    if unknown or missing:
        raise ConfigError(
            f'arch: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}; '
            f'a dict needs exactly {list(Arch._fields)}, of which drop_path_rate may be left out'
        )
    for field in ('embed_dims', 'depths', 'num_heads', 'group_splits', 'kernel_sizes'):
        if not isinstance(arch[field], (list, tuple)) or len(arch[field]) != NUM_STAGES:
            raise ConfigError(f'arch.{field} needs {NUM_STAGES} entries, got {arch[field]!r}')
    for field in ('group_splits', 'kernel_sizes'):
        if not all(isinstance(entry, (list, tuple)) for entry in arch[field]):
            raise ConfigError(
                f'arch.{field} needs a tuple of integers for each stage, got {arch[field]!r}'
            )
    resolved = Arch(
        embed_dims=tuple(arch['embed_dims']),
        depths=tuple(arch['depths']),
        num_heads=tuple(arch['num_heads']),
        group_splits=tuple(map(tuple, arch['group_splits'])),
        kernel_sizes=tuple(map(tuple, arch['kernel_sizes'])),
        drop_path_rate=arch.get('drop_path_rate', 0.0),
    )
    _check(resolved)
    return resolved


def check_rate(field: str, rate: Any) -> float:
    """Pass on a drop path rate.

    Raises:
        ConfigError: If it is not a number in [0, 1).
    """
    if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise ConfigError(f'{field}={rate!r} is not a number in [0, 1)')
    return rate


def _check(arch: Arch) -> None:
    check_rate('arch.drop_path_rate', arch.drop_path_rate)
    for field in ('embed_dims', 'depths', 'num_heads'):
        for value in getattr(arch, field):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f'arch.{field} allows positive integers, got {value!r}')
    if arch.embed_dims[0] % 2:
        raise ConfigError(f'arch.embed_dims[0] must be even, got {arch.embed_dims[0]}')
    for stage in range(NUM_STAGES):
        dims, heads = arch.embed_dims[stage], arch.num_heads[stage]
        split, kernels = arch.group_splits[stage], arch.kernel_sizes[stage]
        if dims % heads:
            raise ConfigError(
                f'arch.num_heads[{stage}]={heads} must divide embed_dims[{stage}]={dims}'
            )
        if any(not isinstance(n, int) or n < 0 for n in split) or sum(split) != heads:
            raise ConfigError(
                f'arch.group_splits[{stage}]={list(split)} must be non-negative integers that '
                f'sum to num_heads[{stage}]={heads}'
            )
        if len(split) != len(kernels) + 1:
            raise ConfigError(
                f'arch.group_splits[{stage}]={list(split)} needs one entry for each of '
                f'kernel_sizes[{stage}]={list(kernels)} and one for the global branch'
            )
        if any(not isinstance(k, int) or k < 1 or k % 2 == 0 for k in kernels):
            raise ConfigError(
                f'arch.kernel_sizes[{stage}] allows odd positive integers, got {list(kernels)}'
            )
