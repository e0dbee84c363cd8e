import contextlib
import functools
import gc
import importlib
import io
import itertools
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from mmengine.runner import set_random_seed

import mmcloformer  # noqa: F401  (before any host: it puts the ops stand-in in place)
from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.datasets.store import write_shapes
from tests.hosts import end_workers, forget_instances, shorten_config_handling

TESTS = Path(__file__).parent
ROOT = TESTS.parent
TOOLS = {path.name: path for path in (ROOT / 'tools').rglob('*.*')}
REAL_DATA = ROOT.parent / 'shared' / 'data'

shorten_config_handling()


def pytest_collection_modifyitems(items):
    """Leave what is nightly out of the fast tests too; put the tools first, which take longest."""
    for item in items:
        if item.get_closest_marker('nightly'):
            item.add_marker('slow')
    items.sort(key=lambda item: TESTS / 'test_tools' not in item.path.parents)


def pytest_collection_finish(session):
    """Leave the modules of the hosts to no garbage collection: each of them would take 0.4 s."""
    if hasattr(session.config, 'workerinput'):
        for host in ('mmdet', 'mmseg', 'mmpretrain'):
            importlib.import_module(f'{host}.apis')
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Start each test, and fixtures of any scope, as in a new process with one seed."""
    forget_instances()
    set_random_seed(0)


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


@functools.cache
def load_tool(name):
    """Execute a tool's file once and return its global names.

    Executing `test.py` twice in one process would register its hook twice.
    """
    return runpy.run_path(str(TOOLS[name]))


@pytest.fixture(scope='session')
def tool_main():
    """Run a tool's `main` in this process and return what it prints; its errors come through."""

    def run(tool, *args):
        forget_instances()
        # Not capsys: loggers keep the stream they were made with, and capsys closes its own.
        stdout = io.StringIO()
        argv = mock.patch.object(sys, 'argv', [tool, *map(str, args)])
        try:
            with argv, contextlib.redirect_stdout(stdout):
                load_tool(tool)['main']()
        finally:
            end_workers()
            print(stdout.getvalue())
        return stdout.getvalue()

    return run


@pytest.fixture(scope='session')
def tool_error(tool_main):
    """Run a tool in this process and return the message of the error that it exits with."""

    def run(tool, *args):
        with pytest.raises(SystemExit) as exit_info:
            exit_on_user_error(lambda: tool_main(tool, *args))
        message = str(exit_info.value)
        assert message.startswith('error: ')
        return message

    return run


@pytest.fixture(scope='session')
def run_logged(tool_main):
    """Run `train.py` or `test.py` in this process and return the log file that it writes.

    The last positional arguments must be values of `--cfg-options`.
    """
    numbers = itertools.count()

    def run(tool, *args, work_dir):
        # Runs of one name that start in one second share their loggers. Runs in one work dir share
        # a folder and log then.
        name = f'experiment_name=test_{next(numbers)}'
        while Path(work_dir, time.strftime('%Y%m%d_%H%M%S')).exists():
            time.sleep(0.05)
        before = set(Path(work_dir).glob('*/*.log'))
        tool_main(tool, *args, name, '--work-dir', work_dir)
        (log,) = set(Path(work_dir).glob('*/*.log')) - before
        return log.read_text()

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
