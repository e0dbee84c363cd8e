"""Inference with the backbone in bfloat16; neck, head and post-processing keep single precision."""

import copy
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from .deploy import DeployError, DeployMixin

_CPU_INFO = Path('/proc/cpuinfo')
# AVX512-BF16 and AMX of x86, BF16 of Arm.
_CPU_FLAGS = r'\b(avx512_bf16|amx_bf16|bf16)\b'


class Bfloat16(nn.Module):
    """Copy of a CloFormer in the deploy form and in bfloat16, for inference.

    It takes and returns tensors in single precision. Folding happens in single precision, before
    the weights are rounded. The outputs differ from those of the backbone by about one percent.

    Args:
        backbone: A `CloFormer` with its weights loaded; it is not changed.
    """

    def __init__(self, backbone: DeployMixin) -> None:
        super().__init__()
        deployed = copy.deepcopy(backbone).eval()
        deployed.switch_to_deploy()
        self.backbone = deployed.to(torch.bfloat16)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of a batch of images `(N, C, H, W)`."""
        return tuple(out.float() for out in self.backbone(x.to(torch.bfloat16)))


def replace_backbones(model: nn.Module) -> dict[str, DeployMixin]:
    """Let a `Bfloat16` take the place of every CloFormer in a model.

    Args:
        model: A detector, segmentor or classifier with its weights loaded.

    Returns:
        The backbones that were replaced, by their names in the model.

    Raises:
        DeployError: If there is none, or one cannot be switched to the deploy form.
    """
    found = {name: part for name, part in model.named_modules() if isinstance(part, DeployMixin)}
    if not found:
        raise DeployError(f'{type(model).__name__} holds no CloFormer to run in bfloat16')
    for name, backbone in found.items():
        model.set_submodule(name, Bfloat16(backbone))
    return found


def require_bfloat16() -> None:
    """Check that the device computes in bfloat16, rather than emulating it at a crawl.

    Raises:
        UserError: If the GPU, or the CPU where no GPU is used, has no such units. On a system
            that does not list the features of its CPU, nothing is checked.
    """
    if torch.cuda.is_available():
        supported, device = torch.cuda.is_bf16_supported(including_emulation=False), 'GPU'
    else:
        supported, device = not _CPU_INFO.exists() or cpu_has_bfloat16(), 'CPU'
    if not supported:
        raise UserError(
            f'this {device} has no units for bfloat16 and would only emulate it, more slowly than '
            f'float32: use --dtype float32'
        )


def cpu_has_bfloat16() -> bool:
    """Return whether Linux lists bfloat16 instructions among the features of the CPU."""
    return _CPU_INFO.exists() and re.search(_CPU_FLAGS, _CPU_INFO.read_text()) is not None
