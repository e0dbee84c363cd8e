import os
import resource
from contextlib import contextmanager

import pytest
import torch
from mmengine.fileio import LocalBackend, register_backend

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.checkpoint.saving import WholeFileBackend, save_whole_files
from mmcloformer.errors import CheckpointError
from tests.toy import Toy, toy_runner


@pytest.fixture
def whole_files():
    save_whole_files()
    yield
    register_backend('local', LocalBackend, force=True, prefixes='')


@contextmanager
def files_up_to(size):
    """As on a full disk, no file of this process grows beyond some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_written_and_replaced(tmp_path):
    file = tmp_path / 'new' / 'file.pth'
    for content in (b'one', b'another'):
        WholeFileBackend().put(content, str(file))
        assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    file, old = tmp_path / 'file.pth', tmp_path / 'old.pth'
    file.write_bytes(b'before')
    old.write_bytes(b'older')
    WholeFileBackend().remove(str(old))
    with files_up_to(100_000), pytest.raises(CheckpointError) as error:
        WholeFileBackend().put(bytes(3_000_000), str(file))
    for words in (str(file), 'File too large', 'takes 3.0 MB', 'MB are free', '--resume'):
        assert words in str(error.value)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {
        'file.pth': b'before',
        'old.pth': b'older',
    }


def interrupt(_):
    raise KeyboardInterrupt


def test_interrupted_before_it_is_on_the_disk_nothing_has_changed(tmp_path, monkeypatch):
    file, old = tmp_path / 'file.pth', tmp_path / 'old.pth'
    old.write_bytes(b'older')
    WholeFileBackend().remove(str(old))
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', interrupt)
        with pytest.raises(KeyboardInterrupt):
            WholeFileBackend().put(b'new', str(file))
    assert not file.exists()
    assert old.exists()
    # The next attempt takes up what was left of it.
    WholeFileBackend().put(b'new', str(file))
    assert [f.name for f in tmp_path.iterdir()] == ['file.pth']


def test_a_file_saved_anew_after_its_removal_stays(tmp_path):
    """As the host does with a best checkpoint that is better still at the same epoch."""
    file = tmp_path / 'best.pth'
    file.write_bytes(b'good')
    WholeFileBackend().remove(str(file))
    WholeFileBackend().put(b'better', str(file))
    assert file.read_bytes() == b'better'


@pytest.mark.usefixtures('whole_files')
def test_training_on_a_full_disk_keeps_the_only_checkpoint(tmp_path):
    """The host removes it before it saves the next."""
    settings = dict(model=Toy(ballast=4_000_000), checkpoint=dict(max_keep_ckpts=1))
    toy_runner(tmp_path, epochs=1, **settings).train()
    with files_up_to(2_000_000), pytest.raises(CheckpointError, match=r'epoch_2\.pth'):
        toy_runner(tmp_path, epochs=3, resume=True, **settings).train()
    assert read_checkpoint(tmp_path / 'epoch_1.pth')['meta']['epoch'] == 1
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert [f.name for f in tmp_path.glob('*.pth*')] == ['epoch_1.pth']

    toy_runner(tmp_path, epochs=3, resume=True, **settings).train()
    assert [f.name for f in tmp_path.glob('*.pth*')] == ['epoch_3.pth']
    assert torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['meta']['iter'] == 6


@pytest.mark.usefixtures('whole_files')
@pytest.mark.parametrize('keep', [1, 2])
def test_as_many_checkpoints_stay_as_the_config_says(tmp_path, keep):
    toy_runner(tmp_path, epochs=5, checkpoint=dict(max_keep_ckpts=keep)).train()
    names = {f.name for f in tmp_path.glob('*.pth*')}
    assert names == {f'epoch_{epoch}.pth' for epoch in (4, 5)[-keep:]}
