import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch

import mmcloformer


@pytest.fixture(autouse=True)
def _stand_in() -> None:
    if PathFinder.find_spec('mmcv._ext', mmcv.__path__):
        pytest.skip('mmcv has its compiled ops, so the stand-in is not used')


@pytest.fixture(params=['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu'])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope='session')
def compiled() -> dict[str, torch.Tensor]:
    """Inputs and outputs of a compiled mmcv."""
    with np.load(Path(__file__).parents[2] / 'data' / 'mmcv_ops.npz') as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture
def run() -> Callable[[str], str]:
    """Run a program in a new interpreter and return what it printed."""

    def run_program(program: str) -> str:
        done = subprocess.run(
            [sys.executable, '-c', program],
            cwd=Path(mmcloformer.__file__).parents[1],
            env=os.environ | {'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_program
