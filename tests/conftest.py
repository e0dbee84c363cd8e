import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import mmcloformer  # noqa: F401  (before any host: it puts the ops stand-in in place)
from mmcloformer.datasets.store import write_shapes

ROOT = Path(__file__).parents[1]
TOOLS = {path.name: path for path in (ROOT / 'tools').rglob('*.*')}
REAL_DATA = ROOT.parent / 'shared' / 'data'


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A small set of the generated scenes in every layout."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    write_shapes(root, num_train=8, num_val=4)
    return root


@pytest.fixture(scope='session')
def real_data():
    """Real COCO, ADE20K and ImageNet samples, which the project may not ship."""
    if not REAL_DATA.is_dir():
        pytest.skip('no real data beside the checkout')
    return REAL_DATA


@pytest.fixture(scope='session')
def run_tool():
    """Run a tool as a user does, in a process of its own."""

    def run(tool, *args, code=0, cwd=ROOT):
        done = subprocess.run(
            [sys.executable, str(TOOLS[tool]), *map(str, args)],
            cwd=cwd,
            env=os.environ | dict(OMP_WAIT_POLICY='PASSIVE'),
            capture_output=True,
            text=True,
        )
        output = done.stdout + done.stderr
        assert done.returncode == code, output[-5000:]
        return output

    return run


@pytest.fixture
def tool_main(monkeypatch):
    """Run a tool's `main` in this process; its errors come through."""

    def run(tool, *args):
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        runpy.run_path(str(TOOLS[tool]))['main']()

    return run


def coco_options(root, *, train='train2017', val='val2017'):
    """`--cfg-options` that point a COCO config at another folder."""
    options = []
    for split, images in (('train', train), ('val', val), ('test', val)):
        dataset = f'{split}_dataloader.dataset'
        options += [
            f'{dataset}.data_root={root}/',
            f'{dataset}.ann_file=annotations/instances_{images}.json',
            f'{dataset}.data_prefix.img={images}/',
        ]
    for evaluator in ('val_evaluator', 'test_evaluator'):
        options.append(f'{evaluator}.ann_file={root}/annotations/instances_{val}.json')
    return options
