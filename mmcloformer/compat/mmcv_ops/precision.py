"""The number type the kernels compute in."""

import functools

import torch
from torch import Tensor


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring tensors to one floating type, the widest among them and float32.

    Mixed precision training hands the ops tensors of different types, which torchvision's kernels
    refuse, and bfloat16, which they lack.
    """
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)
