import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.errors import CheckpointError
from tests.payload import Payload


@pytest.fixture
def good(tmp_path):
    path = tmp_path / 'good.pth'
    torch.save(dict(state_dict=dict(weight=torch.arange(1000.0))), path)
    return path


def readers():
    return [read_checkpoint, CheckpointLoader.load_checkpoint]


@pytest.mark.parametrize('read', readers())
@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, read, zipped):
    touched = tmp_path / 'touched'
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict=Payload(touched)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match='would run code'):
        read(str(path))
    assert not touched.exists()


@pytest.mark.parametrize('read', readers())
def test_bare_pickle_is_refused(tmp_path, read):
    touched = tmp_path / 'touched'
    path = tmp_path / 'bad.pkl'
    path.write_bytes(pickle.dumps(Payload(touched)))
    with pytest.raises(CheckpointError):
        read(str(path))
    assert not touched.exists()


@pytest.mark.parametrize('read', readers())
@pytest.mark.parametrize('kept', [0, 1, 100, 0.5, 0.99])
def test_a_file_cut_short_is_called_damaged(good, read, kept):
    content = good.read_bytes()
    good.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match='damaged'):
        read(str(good))


def test_noise_a_folder_and_nothing(tmp_path):
    noise = tmp_path / 'noise.pth'
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(noise)
    for absent in (tmp_path, tmp_path / 'absent.pth'):
        with pytest.raises(CheckpointError, match='does not exist'):
            read_checkpoint(absent)


def test_a_download_is_read_by_the_same_rules(tmp_path, monkeypatch, served):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    torch.save(dict(state_dict=Payload(tmp_path / 'touched')), tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match='would run code'):
        CheckpointLoader.load_checkpoint(f'{served}/bad.pth')
    assert not (tmp_path / 'touched').exists()


def test_safetensors(tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_file({'weight': torch.arange(10.0)}, path)
    assert torch.equal(read_checkpoint(path)['weight'], torch.arange(10.0))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)


@pytest.mark.parametrize('core', ['core', '_core'])
def test_what_mmengine_saves_is_read_whatever_numpy_saved_it(tmp_path, core):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    message_hub = dict(log_scalars={'train/loss': history}, runtime_info=dict(iter=np.int64(3)))
    path = tmp_path / 'run.pth'
    torch.save(dict(message_hub=message_hub, meta=dict(loss=np.float64(0.5))), path,
               _use_new_zipfile_serialization=False)  # fmt: skip
    here = np.float64().__reduce__()[0].__module__.encode()
    path.write_bytes(path.read_bytes().replace(here, f'numpy.{core}.multiarray'.encode()))
    loaded = CheckpointLoader.load_checkpoint(str(path))
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 1.5
    assert loaded['message_hub']['runtime_info']['iter'] == 3


def test_getattr_reaches_nothing_but_the_statistics(tmp_path):
    """The maintained fork allows `getattr` itself."""

    class Reach:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, '__init__'))

    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict=Reach()), path)
    with pytest.raises(CheckpointError, match='getattr of'):
        read_checkpoint(path)


def test_imported_last_it_still_guards(tmp_path):
    """A user's script may import the host first."""
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict=Payload(tmp_path / 'touched')), path)
    code = (
        f'import mmengine.runner, mmcloformer\nmmengine.runner.load_checkpoint(None, {str(path)!r})'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'CheckpointError' in run.stderr
    assert not (tmp_path / 'touched').exists()
