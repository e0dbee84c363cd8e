"""The released code's models, as far as they can be had: its keys, weights drawn from their
names, and what it computed with them (`tests/data`)."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

DATA = Path(__file__).parent / 'data'

# Name of the reference files -> ours.
ARCHS = {'xxs': 'xxs', 'xs': 'xs', 's': 's', 'global': 'xxs-global', 'no_global': 'xxs-local'}


def state_dict(reference: str) -> dict[str, torch.Tensor]:
    shapes = json.loads((DATA / f'keys_{reference}.json').read_text())
    return {key: torch.from_numpy(draw(key, tuple(shape))) for key, shape in shapes.items()}


def draw(key: str, shape: tuple[int, ...]) -> Any:
    random = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith('running_var'):
        return random.uniform(0.5, 1.5, shape).astype('float32')
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, 'int64')
    x = random.standard_normal(shape)
    if len(shape) > 1:
        x = x / np.sqrt(np.prod(shape[1:]))
    elif key.endswith('weight'):
        x = 1 + 0.1 * x
    else:
        x = 0.1 * x
    return x.astype('float32')


def outputs(reference: str) -> dict[str, Any]:
    with np.load(DATA / f'outputs_{reference}.npz') as file:
        return dict(file)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype('float32'))
