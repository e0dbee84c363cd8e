"""Package metadata; `make install` sets up a whole environment."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


TORCHVISION = 'torchvision>=0.21'  # Its kernels stand in for mmcv's.

setup(
    name='mmcloformer',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'mmcloformer/__init__.py').read_text())[1],
    description='CloFormer for detection, segmentation and classification with OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmcloformer', 'mmcloformer.*']),
    # Links to the top-level folders, where mim and `_base_ = 'mmcloformer::...'` look.
    package_data={
        'mmcloformer': [
            '.mim/model-index.yml',
            '.mim/configs/*.yml',
            '.mim/configs/*.py',
            '.mim/configs/demo/*.py',
            '.mim/configs/small/*.py',
            '.mim/tools/*',
            '.mim/tools/*/*',
            'weights/*',
        ]
    },
    # It runs the configs of a checkout.
    exclude_package_data={'mmcloformer': ['.mim/tools/misc/demo_all.py']},
    python_requires='>=3.10',
    # The two host stacks install the same folders, so neither may be pulled in over the other:
    # choose one as an extra.
    install_requires=['torch>=2.6'],
    extras_require={
        'onedl': [TORCHVISION, *requirements('onedl.txt')],
        'openmmlab': [TORCHVISION, *requirements('openmmlab.txt')],
        'deploy': requirements('deploy.txt'),
        'dev': requirements('dev.txt'),
    },
)
