import io
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import FileClient, LocalBackend
from mmengine.fileio.backends import backends, prefix_to_backends

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.checkpoint.saving import write_whole
from mmcloformer.compat.whole_files import WholeFilesBackend
from mmcloformer.engine.resuming import resume_from_last_whole
from mmcloformer.errors import CheckpointError
from tests.processes import run_alone
from tests.toy import Toy, toy_runner, validated_runner

ATOMIC = dict(type='AtomicCheckpointHook')


@contextmanager
def files_up_to(size):
    """As on a full disk, no file of this process grows beyond this number of bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return {file.name for file in folder.glob('*.pth*')}


def test_a_file_is_written_and_replaced_or_left_as_it_was(tmp_path):
    file = tmp_path / 'file.pth'
    for content in (b'one', b'another'):
        write_whole(file, content)
        assert file.read_bytes() == content
    with files_up_to(100_000), pytest.raises(OSError, match='File too large'):
        write_whole(file, bytes(3_000_000))
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_training_on_a_full_disk_keeps_the_only_checkpoint(tmp_path):
    settings = dict(model=Toy(ballast=4_000_000), checkpoint=dict(ATOMIC, max_keep_ckpts=1))
    toy_runner(tmp_path, epochs=1, **settings).train()
    with files_up_to(2_000_000), pytest.raises(CheckpointError) as error:
        toy_runner(tmp_path, epochs=3, resume=True, **settings).train()
    for words in ('epoch_2.pth', 'File too large', '4.0 MB', 'MB are free', '--resume'):
        assert words in str(error.value)
    assert read_checkpoint(tmp_path / 'epoch_1.pth')['meta']['epoch'] == 1
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert names(tmp_path) == {'epoch_1.pth'}

    toy_runner(tmp_path, epochs=3, resume=True, **settings).train()
    assert names(tmp_path) == {'epoch_3.pth'}
    assert torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['meta']['iter'] == 6


@pytest.mark.parametrize(
    ('by_epoch', 'keep', 'resume'), [(True, 1, False), (True, 2, True), (False, 2, True)]
)
def test_as_many_checkpoints_stay_as_the_config_says(tmp_path, by_epoch, keep, resume):
    settings = dict(checkpoint=dict(ATOMIC, max_keep_ckpts=keep, by_epoch=by_epoch))
    if resume:
        toy_runner(tmp_path, epochs=3, **settings).train()
    toy_runner(tmp_path, epochs=5, resume=resume, **settings).train()
    # The host counts the epoch anew that it resumes by iteration.
    steps = [4, 5] if by_epoch else [11, 12] if resume else [9, 10]
    kind = 'epoch' if by_epoch else 'iter'
    assert names(tmp_path) == {f'{kind}_{step}.pth' for step in steps[-keep:]}


def test_a_smaller_number_to_keep_after_resuming_into_another_folder(tmp_path):
    toy_runner(tmp_path / 'work', epochs=3, checkpoint=dict(ATOMIC, max_keep_ckpts=4)).train()
    settings = dict(ATOMIC, max_keep_ckpts=2, out_dir=str(tmp_path / 'out'))
    toy_runner(tmp_path / 'work', epochs=6, resume=True, checkpoint=settings).train()
    saved = tmp_path / 'out' / 'work'
    assert names(saved) == {'epoch_5.pth', 'epoch_6.pth'}
    assert (tmp_path / 'work' / 'last_checkpoint').read_text() == str(saved / 'epoch_6.pth')


@pytest.mark.parametrize('hook', ['CheckpointHook', 'AtomicCheckpointHook'])
def test_the_best_checkpoints_are_those_of_the_host(tmp_path, hook):
    scores = [dict(acc=value, loss=value) for value in (0.1, 0.5, 0.3, 0.7)]
    checkpoint = dict(type=hook, max_keep_ckpts=1, save_best=['acc', 'loss'])
    runner = validated_runner(tmp_path, scores, epochs=4, checkpoint=checkpoint)
    runner.train()
    assert names(tmp_path) == {'epoch_4.pth', 'best_acc_epoch_4.pth', 'best_loss_epoch_1.pth'}
    assert read_checkpoint(tmp_path / 'best_acc_epoch_4.pth')['meta']['epoch'] == 4


def test_a_best_checkpoint_goes_only_after_the_better_one_is_complete(tmp_path, monkeypatch):
    scores = [dict(acc=0.1), dict(acc=0.5)]
    checkpoint = dict(ATOMIC, save_best='acc', max_keep_ckpts=1)
    rename, seen = Path.replace, {}

    def look(path, target):
        rename(path, target)
        seen[target.name] = names(tmp_path)

    monkeypatch.setattr(Path, 'replace', look)
    validated_runner(tmp_path, scores, epochs=2, checkpoint=checkpoint).train()
    both = {'epoch_2.pth', 'best_acc_epoch_1.pth', 'best_acc_epoch_2.pth'}
    assert seen['best_acc_epoch_2.pth'] == both
    assert names(tmp_path) == {'epoch_2.pth', 'best_acc_epoch_2.pth'}


@pytest.mark.parametrize('name', ['epoch_2.pth', 'best_acc_epoch_2.pth', 'epoch_2.pth again'])
def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch, name):
    """Even if the resumed run saves nothing of that name."""
    checkpoint = dict(ATOMIC, save_best='acc')
    scores = [dict(acc=0.1), dict(acc=0.5)]
    rename = Path.replace

    def interrupt_once(path, target):
        if target.name == name.split()[0] and (target.exists() or 'again' not in name):
            raise KeyboardInterrupt
        rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', interrupt_once)
        with pytest.raises(KeyboardInterrupt):
            validated_runner(tmp_path, scores, epochs=2, checkpoint=checkpoint).train()
    assert list(tmp_path.glob('*.part'))
    resumed = dict(epochs=2, checkpoint=checkpoint, resume=True)
    validated_runner(tmp_path, [dict(acc=0.5)], **resumed).train()
    assert not list(tmp_path.glob('*.part'))


def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_validate(work_dir, scores, **resume):
    validated_runner(
        work_dir,
        [dict(acc=value) for value in scores],
        epochs=4,
        checkpoint=dict(ATOMIC, save_best='acc', max_keep_ckpts=1),
        custom_hooks=[dict(type='MissedValidationHook'), dict(type='ReseedHook')],
        **resume,
    ).train()


def train_and_die(work_dir, scores, moment, number):
    """Kill this process at one moment of one save."""
    put, calls = WholeFilesBackend.put, []

    def put_and_kill(backend, content, path):
        calls.append(path)
        if len(calls) == number:
            if moment == 'writing':
                Path(path).with_name('unfinished.part').write_bytes(content[: len(content) // 2])
                kill()
            owner = os if moment == 'fsync' else Path
            if moment != 'last_checkpoint':
                setattr(owner, moment, kill)
        put(backend, content, path)
        if len(calls) == number:
            kill()

    WholeFilesBackend.put = put_and_kill
    train_and_validate(work_dir, scores)


@pytest.mark.parametrize(
    ('moment', 'number'),
    [
        ('writing', 1),
        ('writing', 4),
        ('fsync', 2),
        ('replace', 1),
        ('replace', 5),
        ('unlink', 2),
        ('unlink', 4),
        ('last_checkpoint', 1),
        ('last_checkpoint', 5),
    ],
)
def test_a_run_killed_while_it_saves_ends_as_one_left_alone(tmp_path, moment, number):
    """kill -9 at one moment of one save: of an epoch, of the best one, of an epoch again."""
    scores = (0.1, 0.5, 0.3, 0.7)
    train_and_validate(tmp_path / 'alone', scores)
    died = run_alone(train_and_die, tmp_path / 'killed', scores, moment, number)
    assert died == -signal.SIGKILL
    pointer = tmp_path / 'killed' / 'last_checkpoint'
    cfg = Config(dict(work_dir=str(pointer.parent)))
    resume_from_last_whole(cfg)
    epoch = read_checkpoint(cfg.load_from)['meta'] if cfg.resume else dict(epoch=0)
    first = epoch['epoch'] if epoch.get('is_validated', not cfg.resume) else epoch['epoch'] - 1
    train_and_validate(
        tmp_path / 'killed', scores[first:], resume=cfg.resume, load_from=cfg.get('load_from')
    )
    assert names(tmp_path / 'killed') == names(tmp_path / 'alone')
    assert not list(tmp_path.glob('*/*.part'))
    alone, killed = (
        read_checkpoint(tmp_path / name / 'epoch_4.pth')['state_dict']
        for name in ('alone', 'killed')
    )
    assert all(alone[key].equal(killed[key]) for key in alone)


def test_removals_wait_for_the_next_complete_file(tmp_path):
    backend = WholeFilesBackend([])
    again = WholeFilesBackend(backend.outdated)  # mmengine builds one for each operation.
    other = tmp_path / 'other'
    other.mkdir()
    for file in (tmp_path / 'a.pth', tmp_path / 'b.pth', other / 'best.pth'):
        file.write_bytes(b'old')
        backend.remove(str(file))
    assert names(tmp_path) == {'a.pth', 'b.pth'}
    with files_up_to(1000), pytest.raises(CheckpointError):
        again.put(bytes(100_000), str(tmp_path / 'c.pth'))
    assert names(tmp_path) == {'a.pth', 'b.pth'}
    again.put(b'new', str(tmp_path / 'b.pth'))
    assert names(tmp_path) == {'b.pth'}
    assert (tmp_path / 'b.pth').read_bytes() == b'new'
    # That of the run that this one was resumed from.
    assert (other / 'best.pth').is_file()


def test_a_file_is_not_outdated_under_another_name_of_its_folder(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to('real')
    backend = WholeFilesBackend([])
    backend.remove(str(tmp_path / 'real/best.pth'))
    backend.put(b'new', str(tmp_path / 'link/best.pth'))
    assert (tmp_path / 'real/best.pth').read_bytes() == b'new'


@pytest.mark.parametrize(
    ('name', 'resume'), [('epoch_1.pth', False), ('best_acc_epoch_9.pth', False), ('iter_7.pth', 1)]
)
def test_checkpoints_of_another_run_are_told(tmp_path, name, resume):
    folder = tmp_path / 'out' / 'work'
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b'old')
    checkpoint = dict(ATOMIC, out_dir=str(tmp_path / 'out'))
    runner = toy_runner(tmp_path / 'work', checkpoint=checkpoint, resume=resume)
    runner.train()
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert ('checkpoints of another run' in log) != resume
    assert (folder / name).is_file()


def test_publishing(tmp_path):
    checkpoint = dict(ATOMIC, published_keys=['meta', 'state_dict'])
    toy_runner(tmp_path / 'whole', checkpoint=checkpoint).train()
    (published,) = names(tmp_path / 'whole') - {'epoch_1.pth'}
    assert published.startswith('epoch_1-')
    assert read_checkpoint(tmp_path / 'whole' / published).keys() == {'meta', 'state_dict'}


class Remote(LocalBackend):
    """A remote store, without a client for it."""

    files: ClassVar[dict[str, bytes]] = {}

    def put(self, obj, filepath):
        self.files[filepath] = obj

    def get(self, filepath):
        return self.files[filepath]

    def isfile(self, filepath):
        return filepath in self.files

    def remove(self, filepath):
        del self.files[filepath]


def test_publishing_from_a_remote_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(backends, 'petrel', Remote)
    for prefixes in (prefix_to_backends, FileClient._prefix_to_backends):
        monkeypatch.setitem(prefixes, 's3', Remote)
    monkeypatch.setattr(FileClient, '_instances', {})
    settings = dict(out_dir='s3://bucket', published_keys=['state_dict'], max_keep_ckpts=1)
    toy_runner(tmp_path / 'run', epochs=2, checkpoint=dict(ATOMIC, **settings)).train()
    last, published = Remote.files
    assert last == 's3://bucket/run/epoch_2.pth'
    assert published.startswith('s3://bucket/run/epoch_2-')
    assert torch.load(io.BytesIO(Remote.files[published])).keys() == {'state_dict'}
