"""Which files are read, by the package and by mmengine, and which are refused."""

import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.compat.checkpoint_loaders import safe_torch_load, while_resuming
from mmcloformer.errors import CheckpointError
from tests.payload import Call, Payload


@pytest.fixture
def good(tmp_path):
    path = tmp_path / 'good.pth'
    torch.save(dict(state_dict=dict(weight=torch.arange(1000.0))), path)
    return path


def readers():
    return [read_checkpoint, CheckpointLoader.load_checkpoint]


BESIDE = dict(
    config=Call(dict, 1),
    optimizer=dict(state=[Call(print)]),
    message_hub=dict(runtime_info=dict(cfg=[dict(deep=(1, Call(open, 'x')))])),
    meta=Call(open, 'x'),
)


@pytest.mark.parametrize('beside', BESIDE)
def test_only_resuming_needs_what_is_beside_the_weights(tmp_path, beside):
    path = str(tmp_path / 'file.pth')
    torch.save({'state_dict': {'w': torch.ones(1)}, beside: BESIDE[beside]}, path)
    load = CheckpointLoader.load_checkpoint
    for _ in range(2):
        for read in (read_checkpoint, load, safe_torch_load):
            assert read(path)['state_dict']['w'] == 1
        with open(path, 'rb') as file:
            assert safe_torch_load(file)['state_dict']['w'] == 1
        with pytest.raises(CheckpointError, match=rf'{path} is refused for resuming: {beside}'):
            while_resuming(load)(path)


@pytest.mark.parametrize(
    ('content', 'path'),
    [
        (Call(open, 'x'), 'it'),
        (dict(state_dict=Call(open, 'x'), optimizer={}), 'state_dict'),
        (
            dict(state_dict={'a.weight': torch.ones(1), 'a.bias': Call(open, 'x')}),
            'state_dict.a.bias',
        ),
        (dict(state_dict={'a': [torch.ones(1), Call(open, 'x')]}), r'state_dict.a\[1\]'),
        (dict(model={'a.bias': Call(open, 'x')}, config=Call(dict)), 'model.a.bias'),
        (dict(model_ema={'a.bias': Call(open, 'x')}, model=Call(dict)), 'model_ema.a.bias'),
        (dict(model=Call(open, 'x'), epoch=3), 'model'),
        ({'a.weight': torch.ones(1), 'a.bias': Call(open, 'x')}, 'a.bias'),
    ],
)
@pytest.mark.parametrize('read', readers())
def test_weights_that_are_objects_are_refused_by_name(tmp_path, read, content, path):
    file = tmp_path / 'bad.pth'
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=rf'{file} is refused as weights: {path} is .*open'):
        read(str(file))


@pytest.mark.parametrize('read', readers())
def test_formats_that_torch_load_would_run_are_refused(tmp_path, read):
    for name in ('script.pth', 'script.safetensors'):
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / name)
        with pytest.raises(CheckpointError, match=r'damaged|as weights'):
            read(str(tmp_path / name))
    payload = pickle.dumps(Payload(tmp_path / 'touched'))
    with tarfile.open(tmp_path / 'old.pth', 'w') as tar:
        for name in ('storages', 'tensors', 'pickle'):
            entry = tarfile.TarInfo(name)
            entry.size = len(payload)
            tar.addfile(entry, io.BytesIO(payload))
    (tmp_path / 'bare.pth').write_bytes(payload)
    for name in ('old.pth', 'bare.pth'):
        with pytest.raises(CheckpointError, match='damaged'):
            read(str(tmp_path / name))
    assert not (tmp_path / 'touched').exists()


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'location',
    [None, 'cpu', torch.device('cpu'), {'cpu': 'meta'}, 'meta', lambda storage, _: storage],
)
def test_tensors_go_where_the_caller_says(tmp_path, zipped, location):
    path = tmp_path / 'file.pth'
    saved = dict(w=torch.arange(3.0))
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    loaded = read_checkpoint(path, location)['w']
    expected = torch.load(path, location, weights_only=True)['w']
    assert loaded.device == expected.device
    assert loaded.shape == expected.shape
    assert loaded.is_meta or torch.equal(loaded, expected)


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
    with pytest.raises(CheckpointError, match='is refused as weights'):
        CheckpointLoader.load_checkpoint(f'{served}/bad.pth')
    assert not (tmp_path / 'touched').exists()


@pytest.mark.parametrize('name', ['weights.safetensors', 'weights.pth'])
def test_safetensors(tmp_path, name):
    path = tmp_path / name
    save_file({'weight': torch.arange(10.0)}, path)
    assert torch.equal(read_checkpoint(path)['weight'], torch.arange(10.0))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)
