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
from mmcloformer.compat.checkpoint_loaders import load_from_mmcloformer, while_resuming
from mmcloformer.errors import CheckpointError
from tests.payload import Call, Payload

LOAD = CheckpointLoader.load_checkpoint


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('config', Call(dict, 1)),
        ('optimizer', dict(state=[Call(print)])),
        ('message_hub', dict(runtime_info=dict(cfg=[dict(deep=(1, Call(open, 'x')))]))),
        ('meta', Call(open, 'x')),
    ],
)
def test_only_resuming_needs_what_is_beside_the_weights(tmp_path, key, value):
    path = tmp_path / 'file.pth'
    torch.save({'state_dict': {'w': torch.ones(1)}, key: value}, path)
    for _ in range(2):
        for read in (read_checkpoint, LOAD, load_from_mmcloformer):
            assert read(str(path))['state_dict']['w'] == 1
        with path.open('rb') as file:
            assert load_from_mmcloformer(file, weights_only=False)['state_dict']['w'] == 1
        with pytest.raises(CheckpointError, match=rf'{path} is refused for resuming: {key}'):
            while_resuming(LOAD)(str(path))


@pytest.mark.parametrize(
    ('content', 'path'),
    [
        (Call(open, 'x'), 'it'),
        (dict(state_dict=Call(open, 'x'), optimizer={}), 'state_dict'),
        ({'state_dict': {'a.w': torch.ones(1), 'a.b': Call(open, 'x')}}, 'state_dict.a.b'),
        (dict(state_dict={'a': [torch.ones(1), Call(open, 'x')]}), r'state_dict.a\[1\]'),
        (dict(model={'a.b': Call(open, 'x')}, config=Call(dict)), 'model.a.b'),
        (dict(model_ema={'a.b': Call(open, 'x')}, model=Call(dict)), 'model_ema.a.b'),
        (dict(model=Call(open, 'x'), epoch=3), 'model'),
        ({'a.weight': torch.ones(1), 'a.bias': Call(open, 'x')}, 'a.bias'),
    ],
)
def test_weights_that_are_objects_are_refused_by_name(tmp_path, content, path):
    file = tmp_path / 'bad.pth'
    torch.save(content, file)
    for read in (read_checkpoint, LOAD):
        with pytest.raises(CheckpointError, match=rf'{file} is refused as weights: {path} is .*o'):
            read(str(file))


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_formats_that_torch_load_would_run_are_refused(tmp_path):
    payload = pickle.dumps(Payload(tmp_path / 'touched'))
    for name in ('script.pth', 'script.safetensors'):
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / name)
    with tarfile.open(tmp_path / 'old.pth', 'w') as tar:
        for name in ('storages', 'tensors', 'pickle'):
            entry = tarfile.TarInfo(name)
            entry.size = len(payload)
            tar.addfile(entry, io.BytesIO(payload))
    (tmp_path / 'bare.pth').write_bytes(payload)
    for name in ('script.pth', 'script.safetensors', 'old.pth', 'bare.pth'):
        for read in (read_checkpoint, LOAD):
            with pytest.raises(CheckpointError, match=r'damaged|as weights'):
                read(str(tmp_path / name))
    assert not (tmp_path / 'touched').exists()


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'location',
    [None, 'cpu', torch.device('cpu'), {'cpu': 'meta'}, 'meta', lambda storage, _: storage.clone()],
)
def test_tensors_go_where_the_caller_says(tmp_path, zipped, location):
    path = tmp_path / 'file.pth'
    torch.save(dict(w=torch.arange(3.0)), path, _use_new_zipfile_serialization=zipped)
    loaded = read_checkpoint(path, location)['w']
    expected = torch.load(path, location, weights_only=True)['w']
    assert loaded.device == expected.device
    assert loaded.shape == expected.shape
    assert loaded.is_meta or torch.equal(loaded, expected)


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
def test_a_file_cut_short_is_called_damaged(tmp_path, kind):
    path = tmp_path / 'weights.pth'  # Not the name but the content says what it is.
    weights = dict(weight=torch.arange(1000.0))
    if kind == 'safetensors':
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == 'zip')
    assert torch.equal(read_checkpoint(path)['weight'], weights['weight'])
    content = path.read_bytes()
    for kept in (0, 1, 20, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        for read in (read_checkpoint, LOAD):
            with pytest.raises(CheckpointError, match=f'{path} cannot be read: it is damaged'):
                read(str(path))


@pytest.mark.parametrize('kind', ['zip', 'safetensors'])
def test_a_device_that_is_not_there(tmp_path, kind):
    path = tmp_path / 'weights.pth'
    weights = dict(weight=torch.arange(3.0))
    save_file(weights, path) if kind == 'safetensors' else torch.save(weights, path)
    with pytest.raises(CheckpointError, match=r"cannot be put on xla:0 \(.*map_location='cpu'"):
        read_checkpoint(path, 'xla:0')


def test_noise_a_folder_and_nothing(tmp_path):
    noise = tmp_path / 'noise.pth'
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(noise)
    with pytest.raises(CheckpointError, match='does not exist'):
        read_checkpoint(tmp_path / 'absent.pth')
    with pytest.raises(CheckpointError, match='is a folder; name a file in it'):
        read_checkpoint(tmp_path)
