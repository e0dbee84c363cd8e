"""Training into the folder of an older run, which is not resumed."""

from pathlib import Path

import pytest
from mmengine.fileio import LocalBackend

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.engine import checkpoint_hook, older_run
from mmcloformer.errors import CheckpointError
from tests.toy import Toy, toy_runner

ATOMIC = dict(type='AtomicCheckpointHook')


def train(work_dir, epochs, **settings):
    runner = toy_runner(work_dir, epochs=epochs, **dict(checkpoint=ATOMIC) | settings)
    runner.train()
    return runner


def names(folder):
    return {file.name for file in folder.glob('*.pth')}


def log(runner):
    return Path(runner.log_dir, f'{runner.timestamp}.log').read_text()


def older_of(runner):
    return Path(runner.work_dir, f'older_{runner.timestamp}')


def test_nothing_of_the_older_run_is_lost_or_mixed(tmp_path):
    train(tmp_path, 3)
    (tmp_path / 'best_acc_epoch_2.pth').write_bytes(b'best')
    (tmp_path / 'pretrained.pth').write_bytes(b'of no run')
    whole = {file.name: file.read_bytes() for file in tmp_path.glob('*.pth')}
    runner = train(tmp_path, 1)
    assert names(tmp_path) == {'epoch_1.pth', 'pretrained.pth'}
    older = older_of(runner)
    assert names(older) == whole.keys() - {'pretrained.pth'}
    assert all((older / name).read_bytes() == whole[name] for name in names(older))
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    (warning,) = (line for line in log(runner).splitlines() if 'older run' in line)
    for words in (
        'WARNING', 'best_acc_epoch_2.pth, epoch_1.pth, epoch_2.pth, epoch_3.pth', str(older),
        'add --resume', 'another --work-dir',
    ):  # fmt: skip
        assert words in warning


def test_they_stay_until_a_checkpoint_is_complete(tmp_path, monkeypatch):
    """A run that was started by mistake, and stopped, leaves the older one to be resumed."""
    train(tmp_path, 2)

    def fail(path):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_hook, '_flush', fail)
        with pytest.raises(CheckpointError):
            train(tmp_path, 1)
    assert names(tmp_path) == {'epoch_1.pth', 'epoch_2.pth'}
    assert not list(tmp_path.glob('older_*'))
    train(tmp_path, 3, resume=True)
    assert read_checkpoint(tmp_path / 'epoch_3.pth')['meta']['epoch'] == 3


@pytest.mark.parametrize('source', [None, 'epoch_1.pth'])
def test_a_run_that_resumes_moves_nothing(tmp_path, source):
    train(tmp_path, 2)
    runner = train(tmp_path, 3, resume=True, load_from=source and str(tmp_path / source))
    assert names(tmp_path) == {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'}
    assert not list(tmp_path.glob('older_*'))
    assert 'older run' not in log(runner)


def test_a_first_run_says_nothing(tmp_path):
    runner = train(tmp_path, 1)
    assert 'older run' not in log(runner)


def test_a_run_resumed_from_another_folder_is_another_run(tmp_path):
    for name in ('first', 'second'):
        train(tmp_path / name, 2)
    source = str(tmp_path / 'first' / 'epoch_1.pth')
    runner = train(tmp_path / 'second', 3, resume=True, load_from=source)
    assert names(older_of(runner)) == {'epoch_1.pth', 'epoch_2.pth'}
    assert names(tmp_path / 'second') == {'epoch_2.pth', 'epoch_3.pth'}
    assert names(tmp_path / 'first') == {'epoch_1.pth', 'epoch_2.pth'}


def test_weights_to_start_from_are_read_before(tmp_path):
    train(tmp_path, 2)
    runner = train(tmp_path, 1, load_from=str(tmp_path / 'epoch_2.pth'))
    assert names(older_of(runner)) == {'epoch_1.pth', 'epoch_2.pth'}


def test_names_of_its_own_and_folders(tmp_path):
    own = dict(ATOMIC, filename_tmpl='step-{}.pt', out_dir=str(tmp_path / 'out'))
    folder = tmp_path / 'out' / 'work'
    train(tmp_path / 'work', 2, checkpoint=own)
    (folder / 'epoch_7.pth').mkdir()  # As DeepSpeed saves.
    runner = train(tmp_path / 'work', 1, checkpoint=own)
    assert {file.name for file in folder.iterdir()} == {
        'step-1.pt', f'older_{runner.timestamp}'
    }  # fmt: skip
    older = {file.name for file in (folder / f'older_{runner.timestamp}').iterdir()}
    assert older == {'step-1.pt', 'step-2.pt', 'epoch_7.pth'}


def test_other_processes_neither_warn_nor_move(tmp_path, monkeypatch):
    train(tmp_path, 1)
    monkeypatch.setattr(older_run, 'is_main_process', lambda: False)
    runner = toy_runner(tmp_path, checkpoint=ATOMIC, epochs=2)
    assert older_run.OlderRun(runner, tmp_path, 'epoch_{}.pth').files == []


def test_the_best_of_the_run_in_another_folder_stays(tmp_path):
    """The host removes it when a run that was resumed from there finds a better one."""
    runner = toy_runner(tmp_path / 'new', checkpoint=ATOMIC, model=Toy())
    runner.train()
    best = tmp_path / 'best_acc_epoch_1.pth'
    best.write_bytes(b'best')
    own = tmp_path / 'new' / 'best_acc_epoch_1.pth'
    own.write_bytes(b'own')
    saver = checkpoint_hook._AtomicSaver(runner)
    backend = checkpoint_hook._RemovalRecorder(saver.outdated)
    assert isinstance(backend, LocalBackend)
    for file in (best, own):
        backend.remove(str(file))
    saver.save_checkpoint(str(tmp_path / 'new'), 'next.pth', save_param_scheduler=False)
    assert best.read_bytes() == b'best'
    assert names(tmp_path / 'new') == {'epoch_1.pth', 'next.pth'}
