"""Training that cannot go on ends with one message and a whole checkpoint."""

import resource
import subprocess
import sys

import pytest

from mmcloformer.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.tiny import write_classifier, write_detector, write_segmentor


def train(config, work_dir, *args, max_file_size=resource.RLIM_INFINITY):
    """Run `tools/train.py`, expect an error of ours, return its message."""
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'train.py', config, '--work-dir', work_dir, *args],
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size,) * 2),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr[-5000:]
    assert 'Traceback' not in done.stderr
    return done.stderr[done.stderr.index('error: ') :]


@pytest.mark.parametrize(
    ('write', 'length', 'last'),
    [
        (write_detector, dict(epochs=5), 'epoch_1.pth'),
        pytest.param(
            write_segmentor, dict(iters=20), 'iter_3.pth', marks=pytest.mark.slow, id='segmentor'
        ),
        pytest.param(
            write_classifier, dict(epochs=5), 'epoch_1.pth', marks=pytest.mark.slow, id='classifier'
        ),
    ],
)
def test_a_loss_that_diverges_is_the_end(shapes, tmp_path, write, length, last):
    config = write(tmp_path / 'tiny.py', shapes, **length)
    kind, number = last.removesuffix('.pth').split('_')
    jump = f'milestones=[{number}], by_epoch={kind == "epoch"}, gamma=1e20'
    with config.open('a') as file:
        file.write(f"param_scheduler = [dict(type='MultiStepLR', {jump})]\n")
    work_dir = tmp_path / 'work'
    message = train(config, work_dir)
    assert 'is not finite' in message
    assert f'Last checkpoint before it: {work_dir / last}' in message
    weights = read_checkpoint(work_dir / last)['state_dict'].values()
    assert all(weight.isfinite().all() for weight in weights)


@pytest.mark.slow
def test_a_full_disk_is_the_end_and_then_training_goes_on(shapes, run_logged, tmp_path):
    config, work_dir = write_detector(tmp_path / 'tiny.py', shapes, epochs=3), tmp_path / 'work'
    run_logged('train.py', config, '--cfg-options', 'train_cfg.max_epochs=1', work_dir=work_dir)
    size = (work_dir / 'epoch_1.pth').stat().st_size
    message = train(config, work_dir, '--resume', max_file_size=size // 2)
    assert f'{work_dir}/epoch_2.pth could not be saved' in message
    assert [f.name for f in work_dir.glob('*.pth*')] == ['epoch_1.pth']
    log = run_logged('train.py', config, '--resume', '--cfg-options', work_dir=work_dir)
    assert 'resumed epoch: 1' in log
    assert [f.name for f in work_dir.glob('*.pth*')] == ['epoch_3.pth']
