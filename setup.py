"""Package metadata; `make install` sets up a whole environment."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def repository_url() -> str | None:
    """Return the URL in CITATION.cff, if it names one."""
    found = re.search(r'^repository-code: (\S+)', (ROOT / 'CITATION.cff').read_text(), re.MULTILINE)
    return found[1].rstrip('/') if found else None


def long_description() -> str:
    """Return the README with absolute links, or without links if the URL is not known."""
    url = repository_url()

    def absolute(link: re.Match[str]) -> str:
        image, text, target = link.groups()
        if '://' in target:
            return link[0]
        return f'{image}[{text}]({url}/{"raw" if image else "blob"}/HEAD/{target})' if url else text

    return re.sub(r'(!?)\[([^]]*)\]\(([^)]+)\)', absolute, (ROOT / 'README.md').read_text())


TORCHVISION = 'torchvision>=0.21'  # Its kernels stand in for mmcv's.

setup(
    name='mmcloformer',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'mmcloformer/__init__.py').read_text())[1],
    description='CloFormer for detection, segmentation and classification with OpenMMLab',
    long_description=long_description(),
    long_description_content_type='text/markdown',
    url=repository_url(),
    author='The mmcloformer contributors',
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['mmcloformer', 'mmcloformer.*']),
    # Links to the top-level folders, where mim and `_base_ = 'mmcloformer::...'` look.
    package_data={
        'mmcloformer': [
            'py.typed',
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
    # They run configs and code of a checkout.
    exclude_package_data={
        'mmcloformer': ['.mim/tools/misc/demo_all.py', '.mim/tools/analysis_tools/benchmark.py']
    },
    python_requires='>=3.10',
    # The two host stacks install the same folders, so neither may be pulled in over the other:
    # choose one as an extra.
    install_requires=['torch>=2.6', 'safetensors>=0.4'],
    extras_require={
        'onedl': [TORCHVISION, *requirements('onedl.txt')],
        'openmmlab': [TORCHVISION, *requirements('openmmlab.txt')],
        'deploy': requirements('deploy.txt'),
        'dev': requirements('dev.txt'),
    },
)
