"""The Slurm tools with a stand-in for `srun` on the PATH, and how the shell tools are called."""

import pytest

from tests.conftest import ROOT, coco_options
from tests.test_tools.launching import asked, finish, free_port, recorder, start, write_program

DEMO = 'configs/demo/retinanet_cloformer_xxs_shapes.py'
CUSTOMARY = [
    '--partition=gpu', '--job-name=job', '--gres=gpu:8', '--ntasks=8', '--ntasks-per-node=8',
    '--cpus-per-task=5', '--kill-on-bad-exit=1',
]  # fmt: skip
# Starts each task of the step as Slurm would, all on this machine.
SRUN = """
import os, subprocess, sys
arguments = sys.argv[1:]
command = arguments[arguments.index('python'):]
(tasks,) = (a.partition('=')[2] for a in arguments if a.startswith('--ntasks='))
job = os.environ | dict(SLURM_NTASKS=tasks, SLURM_NODELIST='node[1-2]')
processes = [
    subprocess.Popen(command, env=job | dict(SLURM_PROCID=str(i), SLURM_LOCALID=str(i)))
    for i in range(int(tasks))
]
sys.exit(max(process.wait() for process in processes))
"""
SCONTROL = """
import sys
assert sys.argv[1:] == ['show', 'hostnames', 'node[1-2]']
print('127.0.0.1', 'node2', sep='\\n')
"""


@pytest.fixture
def ask(tmp_path):
    recorder(tmp_path, 'srun')
    return lambda *args, **env: asked(tmp_path, 'srun', *args, **env)


def python(tool, *args):
    return ['python', '-u', str(ROOT / 'tools' / tool), *args]


def test_training_asks_for_what_mm_users_know(ask):
    train = python('train.py', 'a.py', '--launcher', 'slurm')
    assert ask('slurm_train.sh', 'gpu', 'job', 'a.py') == CUSTOMARY + train
    options = ['--resume', '--cfg-options', 'a.b="[1, 2]"']
    assert ask('slurm_train.sh', 'gpu', 'job', 'a.py', *options) == CUSTOMARY + train + options


def test_the_work_dir_may_follow_the_config(ask):
    argv = ask('slurm_train.sh', 'gpu', 'job', 'a.py', 'work dirs/a', '--resume')
    work_dir = ['--work-dir', 'work dirs/a', '--resume']
    assert argv == CUSTOMARY + python('train.py', 'a.py', '--launcher', 'slurm', *work_dir)


def test_testing_asks_for_what_mm_users_know(ask):
    argv = ask('slurm_test.sh', 'gpu', 'job', 'a.py', 'a b.pth', '--out', 'a.pkl')
    test = python('test.py', 'a.py', 'a b.pth', '--launcher', 'slurm', '--out', 'a.pkl')
    assert argv == CUSTOMARY + test


@pytest.mark.parametrize(('script', 'args'), [('slurm_train.sh', []), ('slurm_test.sh', ['a.pth'])])
def test_the_environment_sizes_the_job(ask, script, args):
    argv = ask(script, 'gpu', 'job', 'a.py', *args, GPUS=16, GPUS_PER_NODE=4, CPUS_PER_TASK=6,
               SRUN_ARGS='--gres=none --time=1:00:00')  # fmt: skip
    assert argv[2:9] == [
        '--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4', '--cpus-per-task=6',
        '--kill-on-bad-exit=1', '--gres=none', '--time=1:00:00',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('script', 'args'),
    [
        ('dist_train.sh', 'CONFIG GPUS'),
        ('dist_test.sh', 'CONFIG CHECKPOINT GPUS'),
        ('slurm_train.sh', 'PARTITION JOB_NAME CONFIG'),
        ('slurm_test.sh', 'PARTITION JOB_NAME CONFIG CHECKPOINT'),
    ],
)
def test_too_few_arguments_are_told_the_usage(script, args):
    for given in ([], args.split()[1:]):
        (line,) = finish(start(script, *given), code=2).splitlines()
        assert line.startswith(f'usage: tools/{script} {args} [')


@pytest.mark.slow
def test_two_tasks_train_and_test_on_the_cpu(shapes, tmp_path):
    write_program(tmp_path / 'bin' / 'srun', SRUN)
    write_program(tmp_path / 'bin' / 'scontrol', SCONTROL)

    def run(script, *args):
        options = [*coco_options(shapes / 'coco'), 'train_cfg.max_epochs=1']
        arguments = (script, 'cpu', 'job', DEMO, *args, '--cfg-options', *options)
        env = dict(GPUS=2, GPUS_PER_NODE=2, SRUN_ARGS='--gres=none', MASTER_PORT=free_port())
        return finish(start(*arguments, path=tmp_path / 'bin', **env))

    # 8 scenes in batches of 4 by 2 processes.
    assert '[1][1/1]' in run('slurm_train.sh', tmp_path / 'work')
    checkpoint = tmp_path / 'work' / 'epoch_1.pth'
    # 4 scenes in batches of 4 by 2 processes.
    assert 'Epoch(test) [1/1]' in run('slurm_test.sh', checkpoint, '--work-dir', tmp_path / 'test')
