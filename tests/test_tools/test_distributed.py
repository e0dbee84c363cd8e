"""Two real processes on the CPU, joined by gloo."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, coco_options

DEMO = 'configs/demo/retinanet_cloformer_xxs_shapes.py'


def launch(script, *args):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    done = subprocess.run(
        [ROOT / 'tools' / script, *map(str, args)],
        cwd=ROOT,
        env=os.environ | dict(PORT=str(port), PATH=path, OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout + done.stderr


def ap(work_dir):
    return json.loads(next(work_dir.glob('*/*.json')).read_text())['coco/bbox_mAP']


@pytest.mark.slow
def test_two_processes_train_and_their_evaluation_is_the_single_ones(shapes, run_tool, tmp_path):
    options = ['--cfg-options', *coco_options(shapes / 'coco'), 'train_cfg.max_epochs=1',
               'train_dataloader.batch_size=2', 'model.test_cfg.score_thr=0.0']  # fmt: skip
    output = launch('dist_train.sh', DEMO, 2, '--work-dir', tmp_path, '--auto-scale-lr', *options)
    assert 'Scaling the original LR by 0.25' in output
    # 8 scenes in batches of 2 by 2 processes.
    assert '[1][2/2]' in output
    for name, start in (('one', run_tool), ('two', launch)):
        work_dir = tmp_path / name
        tool = ['test.py', DEMO, tmp_path / 'epoch_1.pth'] if name == 'one' else [
            'dist_test.sh', DEMO, tmp_path / 'epoch_1.pth', 2]  # fmt: skip
        start(*tool, '--work-dir', work_dir, *options)
    assert ap(tmp_path / 'one') == pytest.approx(ap(tmp_path / 'two'), abs=0)
