"""What a measured result depends on besides the model."""

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    'torch', 'torchvision', 'numpy', 'onnxruntime',
    'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmpretrain',
    'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmsegmentation', 'mmpretrain',
)  # fmt: skip


def environment(device: str) -> dict[str, Any]:
    """Return the name of the device, the number of threads and the versions of packages.

    Args:
        device: `'cpu'` or `'cuda'`.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return dict(
        device=torch.cuda.get_device_name() if device == 'cuda' else _cpu_name(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        versions=versions,
    )


def _cpu_name() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.+)', cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor()
