"""No tool runs code from a checkpoint, wherever the code is and however the file is named."""

import copy
import functools
import pickle
from types import SimpleNamespace

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.checkpoint import read_checkpoint, reading
from mmcloformer.errors import CheckpointError
from tests.conftest import ROOT, coco_options
from tests.payload import Payload
from tests.tiny import write_detector

HIDING_PLACES = {
    'whole state dict': lambda checkpoint, code: checkpoint.update(state_dict=code),
    'weight': lambda checkpoint, code: checkpoint['state_dict'].update({'bbox_head.bias': code}),
    'optimizer': lambda checkpoint, code: checkpoint['optimizer']['state'][0].update(exp_avg=code),
    'message hub': lambda checkpoint, code: checkpoint['message_hub']['runtime_info'].update(
        cfg=[dict(deep=(1, code))]
    ),
    'meta': lambda checkpoint, code: checkpoint['meta'].update(dataset_meta=dict(classes=code)),
}
FORMATS = {
    'zip': torch.save,
    'legacy': functools.partial(torch.save, _use_new_zipfile_serialization=False),
    'bare pickle': lambda checkpoint, path: path.write_bytes(pickle.dumps(checkpoint)),
}


@pytest.fixture(scope='module')
def config(shapes, tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp('config') / 'tiny.py', shapes, epochs=1)


@pytest.fixture(scope='module')
def run(tool_main):
    """Run a tool in this process; returns its exit status or message."""

    def run_tool(tool, *args):
        try:
            exit_on_user_error(lambda: tool_main(tool, *args))
        except SystemExit as exit:
            return exit.code
        return 0

    return run_tool


@pytest.fixture(scope='module')
def whole(run, config, tmp_path_factory):
    """The checkpoint of a run of four iterations, with everything that a run saves."""
    work_dir = tmp_path_factory.mktemp('trained')
    assert run('train.py', config, '--work-dir', work_dir) == 0
    return read_checkpoint(work_dir / 'epoch_1.pth')


@pytest.fixture
def touched(tmp_path):
    """The folder that the code would create."""
    path = tmp_path / 'touched'
    yield path
    assert not path.exists()


@pytest.fixture
def bad(whole, touched, tmp_path):
    """A complete checkpoint with code in a nested list."""
    checkpoint = copy.deepcopy(whole)
    HIDING_PLACES['message hub'](checkpoint, Payload(touched))
    path = tmp_path / 'bad.pth'
    torch.save(checkpoint, path)
    return path


def test_the_code_would_run(bad, touched):
    torch.load(bad, weights_only=False)
    assert touched.exists()
    touched.rmdir()


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('place', HIDING_PLACES)
@pytest.mark.parametrize('name', ['bad.pth', 'bad.safetensors'])
def test_wherever_it_hides(whole, touched, tmp_path, place, form, name):
    checkpoint = copy.deepcopy(whole)
    HIDING_PLACES[place](checkpoint, Payload(touched))
    path = tmp_path / name
    FORMATS[form](checkpoint, path)
    for read in (read_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises(CheckpointError, match=r'refused|damaged'):
            read(str(path))


DEMO = ROOT / 'configs' / 'demo' / 'retinanet_cloformer_xxs_shapes.py'


def arguments(way, config, shapes, bad, work_dir):
    """Command line of a tool that loads the checkpoint."""
    init_cfg = dict(type='Pretrained', checkpoint=str(bad))
    train = ['train.py', config, '--work-dir', work_dir]
    if way == 'test':
        options = ['--cfg-options', *coco_options(shapes / 'coco')]
        return ['test.py', DEMO, bad, '--work-dir', work_dir, *options]
    if way == 'convert':
        return ['convert_checkpoint.py', bad, work_dir / 'out.pth']
    if way in ('predict', 'visualize'):
        image = next((shapes / 'coco' / 'val2017').iterdir())
        return [f'{way}.py', DEMO, bad, image, '--out', work_dir / 'out.png']
    if way == 'resume':
        return [*train, '--resume', bad]
    if way == 'resume the last':
        (work_dir / 'last_checkpoint').write_text(str(bad))
        return [*train, '--resume']
    if way == 'load_from':
        return [*train, '--cfg-options', f'load_from={bad}']
    if way == 'init_cfg':
        fields = (f'model.backbone.init_cfg.{key}={value}' for key, value in init_cfg.items())
        return [*train, '--cfg-options', *fields]
    resnet = work_dir / 'resnet.py'
    resnet.write_text(RESNET.format(base=str(config), init_cfg=init_cfg))
    return ['train.py', resnet, '--work-dir', work_dir]


RESNET = """
_base_ = {base!r}
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, init_cfg={init_cfg}),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
"""


WAYS = [
    'test',
    'convert',
    'resume',
    'predict',
    'visualize',
    'resume the last',
    'load_from',
    'init_cfg',
    "a host backbone's init_cfg",
]


@pytest.mark.parametrize('way', WAYS)
def test_however_it_is_asked_for(run, config, shapes, bad, tmp_path, way):
    message = run(*arguments(way, config, shapes, bad, tmp_path))
    assert message.startswith(f'error: checkpoint {bad} is refused')


@pytest.mark.slow
@pytest.mark.parametrize(
    'way',
    [
        pytest.param(way, marks=[] if way in ('test', 'resume') else pytest.mark.nightly)
        for way in WAYS
    ],
)
def test_in_processes_of_their_own(run_tool, config, shapes, bad, tmp_path, way):
    output = run_tool(*arguments(way, config, shapes, bad, tmp_path), code=1)
    assert f'error: checkpoint {bad} is refused' in output
    assert 'Traceback' not in output


def test_counting_reads_no_checkpoint(run, config, bad, touched):
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(bad))
    cfg.dump(bad.with_suffix('.py'))
    assert run('complexity.py', bad.with_suffix('.py'), '--shape', 64, 64) == 0


@pytest.mark.parametrize('scheme', ['torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls'])
def test_names_that_stand_for_addresses(tmp_path, monkeypatch, served, bad, scheme):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    torch.save(dict(state_dict={'backbone.weight': torch.ones(2)}), tmp_path / 'good.pth')
    names = {name: f'{served}/{name}.pth?download=true' for name in ('good', 'bad')}
    for models in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(mmengine.runner.checkpoint, models, lambda: names)
    weights = CheckpointLoader.load_checkpoint(f'{scheme}://good')['state_dict'].values()
    assert torch.equal(*weights, torch.ones(2))
    with pytest.raises(CheckpointError, match='refused'):
        CheckpointLoader.load_checkpoint(f'{scheme}://bad')


def test_object_stores(monkeypatch, bad):
    store = SimpleNamespace(get=lambda name: bad.read_bytes())
    monkeypatch.setattr(reading, 'get_file_backend', lambda *_, **__: store)
    for scheme in ('s3', 'petrel', 'cluster:s3'):
        with pytest.raises(CheckpointError, match=f'{scheme}://bucket/bad.pth is refused'):
            CheckpointLoader.load_checkpoint(f'{scheme}://bucket/bad.pth')


def test_a_config_in_a_checkpoint_is_not_run(run, config, whole, touched, tmp_path):
    """When it resumes, mmengine runs the `config` of old checkpoints."""
    code = f'import os\nos.mkdir({str(touched)!r})\n'
    checkpoint = copy.deepcopy(whole)
    checkpoint['meta'].update(config=code)
    path = tmp_path / 'old.pth'
    torch.save(checkpoint, path)
    options = ['--cfg-options', 'train_cfg.max_epochs=2']
    assert run('train.py', config, '--work-dir', tmp_path, '--resume', path, *options) == 0
    assert (tmp_path / 'epoch_2.pth').is_file()


class Built:
    """Unpickling this calls a function that `read_checkpoint` allows."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def test_a_config_disguised_is_refused(tmp_path):
    """A numpy record can be indexed by names like a dict, but has no keys to remove."""
    record = np.array((1, 1, 'config'), 'i8, i8, U6')[()]
    rebuild = record.__reduce__()[0]
    meta = Built(rebuild, (Built(np.dtype, (record.dtype.descr,)), record.tobytes()))
    path = tmp_path / 'bad.pth'
    torch.save(dict(meta=meta), path)
    with pytest.raises(CheckpointError, match='refused'):
        read_checkpoint(path)


INT = ('i8', False, True)
PLAIN = (3, '<', None, None, None, -1, -1, 0)
OBJECTS = (3, '<', None, ('a',), {'a': (Built(np.dtype, ('O',)), 0)}, 8, 1, 1)
ADDRESS = b'AAAAAAAA'
REBUILD, SCALAR = np.zeros(1).__reduce__()[0], np.float64().__reduce__()[0]


def array(dtype, data, shape=(1,), kind=np.ndarray):
    return Built(REBUILD, (kind, (0,), b'b'), (1, shape, dtype, False, data))


@pytest.mark.parametrize(
    'forged',
    [
        array(Built(np.dtype, INT, OBJECTS), ADDRESS),
        array(Built(np.dtype, ('O',)), ADDRESS),
        array(Built(np.dtype, INT, PLAIN), ADDRESS, shape=(1 << 40,)),
        array(Built(np.dtype, INT, PLAIN), ADDRESS, shape=(-1, -1)),
        array(Built(np.dtype, INT, PLAIN), [0] * 8),
        array('O', ADDRESS),
        Built(SCALAR, (Built(np.dtype, INT, OBJECTS), ADDRESS)),
        Built(SCALAR, (Built(np.dtype, ('V8',)), ADDRESS)),
        Built(SCALAR, (Built(np.dtype, INT, PLAIN), b'A')),
        Built(np.ndarray, ((1,), 'O')),
        Built(np.dtype, ([('a', 'O')],)),
    ],
)
def test_bytes_are_never_taken_for_objects(tmp_path, forged):
    path = tmp_path / 'bad.pth'
    torch.save(dict(meta=dict(x=forged)), path)
    with pytest.raises(CheckpointError, match=r'refused|damaged'):
        read_checkpoint(path)


def test_whole_numbers_and_arrays_stay(tmp_path):
    """Saved again, they are numpy's own types."""
    values = [np.float64(0.5), np.int64(-3), np.bool_(True), np.arange(6.0).reshape(2, 3)]
    values.append(np.asfortranarray(values[-1]))
    path, again = tmp_path / 'one.pth', tmp_path / 'two.pth'
    torch.save(values, path)
    torch.save(read_checkpoint(path), again)
    for loaded in (read_checkpoint(path), torch.load(again, weights_only=False)):
        for value, original in zip(loaded, values, strict=True):
            assert value.dtype == original.dtype
            assert np.array_equal(value, original)
    assert type(torch.load(again, weights_only=False)[-1]) is np.ndarray


@pytest.mark.parametrize('form', FORMATS)
def test_no_advice_to_load_unsafely(touched, tmp_path, form):
    path = tmp_path / 'bad.pth'
    FORMATS[form](dict(state_dict=Payload(touched)), path)
    with pytest.raises(CheckpointError, match=r'refused|damaged') as error:
        read_checkpoint(path)
    assert 'weights_only' not in str(error.value)


def test_nothing_else_unpickles():
    sources = [*(ROOT / 'mmcloformer').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
    for word in ('torch.load(', 'pickle.load', 'load_url'):
        assert {path.name for path in sources if word in path.read_text()} <= {'reading.py'}
