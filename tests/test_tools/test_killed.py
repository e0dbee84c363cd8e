"""Training through kill -9, at every moment and of every process."""

import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from mmcloformer.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.test_tools.launching import BIN, free_port
from tests.tiny import write_detector, write_segmentor

KILLS = 9
ENV = os.environ | dict(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='PASSIVE')


class Training:
    """`tools/train.py --resume` in a process of its own."""

    def __init__(self, config, work_dir):
        self.work_dir = work_dir
        self.log = work_dir.with_suffix('.log')
        command = [sys.executable, ROOT / 'tools' / 'train.py', config, '--resume']
        self.start([*command, '--work-dir', work_dir], ENV)

    def start(self, command, env):
        self.began = time.time_ns()
        with self.log.open('w') as log:
            self.process = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, env=env, stdout=log, stderr=log
            )

    def wait_for(self, pattern, count, timeout=120):
        """Wait until this process has written that many files, or one file that often."""
        seen = set()
        end = time.monotonic() + timeout
        while len(seen) < count:
            assert self.process.poll() is None, self.tail()
            assert time.monotonic() < end, self.tail()
            files = self.work_dir.glob(pattern)
            seen.update((file.name, self.wrote(file)) for file in files if self.wrote(file))
            time.sleep(0.001)

    def wrote(self, file):
        """Return when this process wrote a file, 0 if it did not."""
        try:
            time = file.stat().st_mtime_ns
        except FileNotFoundError:  # Renamed meanwhile.
            return 0
        return time if time > self.began else 0

    def kill(self):
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL, self.tail()

    def finish(self, timeout=240):
        assert self.process.wait(timeout) == 0, self.tail()

    def tail(self):
        return self.log.read_text()[-5000:]


def in_start_up(training, rng):
    time.sleep(rng.uniform(0, 5))


def in_training(training, rng):
    training.wait_for('*.pth', 1)
    time.sleep(rng.uniform(0, 0.4))


def in_saving(training, rng):
    training.wait_for('*.part', rng.choice([1, 2]))
    time.sleep(rng.uniform(0, 0.01))


def assert_all_whole(work_dir):
    for file in work_dir.glob('*.pth'):
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None


def same(one, other):
    """Whether nested containers of tensors and numbers are equal to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one.equal(other) if hasattr(one, 'equal') else one == other


@pytest.mark.slow
@pytest.mark.parametrize(
    ('write', 'length', 'last'),
    [
        (write_detector, dict(epochs=40), 'epoch_40.pth'),
        pytest.param(write_segmentor, dict(iters=120), 'iter_120.pth', marks=pytest.mark.nightly),
    ],
)
def test_a_run_killed_time_and_again_ends_as_one_left_alone(
    shapes, tmp_path, record_property, write, length, last
):
    config = write(tmp_path / 'tiny.py', shapes, **length)
    alone = Training(config, tmp_path / 'alone')
    alone.finish()

    rng = random.Random(0)
    moments = [in_start_up, in_training, in_saving]
    done = Counter()
    for number in range(KILLS):
        moment = moments[number % len(moments)]
        training = Training(config, tmp_path / 'killed')
        moment(training, rng)
        training.kill()
        done[moment.__name__] += 1
        done['left a file half written'] += any(
            map(training.wrote, training.work_dir.glob('*.part'))
        )
        assert_all_whole(training.work_dir)
    training = Training(config, tmp_path / 'killed')
    training.finish()
    print(f'{KILLS} kills: {dict(done)}')
    record_property('kills', KILLS)
    assert done['left a file half written']

    expected, found = (read_checkpoint(run.work_dir / last) for run in (alone, training))
    for key in ('epoch', 'iter'):
        assert found['meta'][key] == expected['meta'][key]
    for key in ('param_schedulers', 'optimizer', 'state_dict'):
        assert same(found[key], expected[key]), key
    assert not list(training.work_dir.glob('*.part'))


class TwoProcesses(Training):
    """`tools/dist_train.sh` with two CPU processes."""

    def start(self, command, env):
        script = [ROOT / 'tools' / 'dist_train.sh', command[2], 2, *command[3:]]
        super().start(script, env | dict(PORT=str(free_port()), PATH=f'{BIN}:{env["PATH"]}'))

    def rank(self, rank):
        """Process id of a rank."""
        for folder in Path('/proc').glob('[0-9]*'):
            try:
                status = (folder / 'status').read_text()
                env = (folder / 'environ').read_bytes().split(b'\0')
            except OSError:  # Ended meanwhile.
                continue
            if f'PPid:\t{self.process.pid}\n' in status and f'RANK={rank}'.encode() in env:
                return int(folder.name)
        raise AssertionError(self.tail())


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_one_of_two_processes_killed_ends_both(shapes, tmp_path, rank):
    config = write_detector(tmp_path / 'tiny.py', shapes, epochs=6)
    training = TwoProcesses(config, tmp_path / 'work')
    training.wait_for('*.pth', 2)
    os.kill(training.rank(rank), signal.SIGKILL)
    start = time.monotonic()
    assert training.process.wait(60) != 0
    print(f'rank {rank} killed: all ended after {time.monotonic() - start:.1f} s')
    assert_all_whole(training.work_dir)
    assert not (training.work_dir / 'epoch_6.pth').exists()

    training = TwoProcesses(config, tmp_path / 'work')
    training.finish()
    assert re.search(r'resumed epoch: [2-5],', training.log.read_text())
    checkpoint = read_checkpoint(training.work_dir / 'epoch_6.pth')
    assert (checkpoint['meta']['epoch'], checkpoint['meta']['iter']) == (6, 12)
    assert checkpoint['param_schedulers'][0]['_global_step'] == 12
