"""No tool runs code from a checkpoint, wherever the code is and however the file is named."""

import copy
from types import SimpleNamespace

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.compat import checkpoint_loaders
from mmcloformer.errors import CheckpointError
from tests.conftest import ROOT, coco_options
from tests.payload import Payload
from tests.tiny import write_detector


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
    """A complete checkpoint with code among its weights."""
    checkpoint = copy.deepcopy(whole)
    checkpoint['state_dict']['bbox_head.bias'] = Payload(touched)
    torch.save(checkpoint, tmp_path / 'bad.pth')
    return tmp_path / 'bad.pth'


@pytest.fixture
def hidden(whole, touched, tmp_path):
    """A complete checkpoint with code beside its weights."""
    checkpoint = copy.deepcopy(whole)
    checkpoint['message_hub']['runtime_info'].update(cfg=[dict(deep=(1, Payload(touched)))])
    torch.save(checkpoint, tmp_path / 'hidden.pth')
    return tmp_path / 'hidden.pth'


def test_the_code_would_run(bad, hidden, touched):
    for path in (bad, hidden):
        torch.load(path, weights_only=False)
        touched.rmdir()


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
    if way == 'predict':
        image = next((shapes / 'coco' / 'val2017').iterdir())
        return ['predict.py', DEMO, bad, image, '--out', work_dir / 'out.png']
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


def test_only_resuming_needs_all_of_it(run, config, shapes, hidden, tmp_path):
    for way in ('resume', 'resume the last'):
        message = run(*arguments(way, config, shapes, hidden, tmp_path))
        assert message.startswith(f'error: checkpoint {hidden} is refused for resuming: message_')
    assert run(*arguments('load_from', config, shapes, hidden, tmp_path / 'new')) == 0


def test_counting_reads_no_checkpoint(run, config, bad, touched):
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(bad))
    cfg.dump(bad.with_suffix('.py'))
    assert run('complexity.py', bad.with_suffix('.py'), '--shape', 64, 64) == 0


def test_names_that_stand_for_addresses(tmp_path, monkeypatch, served, bad):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    torch.save(dict(state_dict={'backbone.weight': torch.ones(2)}), tmp_path / 'good.pth')
    names = {name: f'{served}/{name}.pth?download=true' for name in ('good', 'bad')}
    for models in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(mmengine.runner.checkpoint, models, lambda: names)
    schemes = ('torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls')
    for url in [f'{served}/{{}}.pth', *(f'{scheme}://{{}}' for scheme in schemes)]:
        loaded = CheckpointLoader.load_checkpoint(url.format('good'))['state_dict'].values()
        assert torch.equal(*loaded, torch.ones(2))
        with pytest.raises(CheckpointError, match='refused'):
            CheckpointLoader.load_checkpoint(url.format('bad'))


def test_object_stores(monkeypatch, bad):
    store = SimpleNamespace(get=lambda name: bad.read_bytes())
    monkeypatch.setattr(checkpoint_loaders, 'get_file_backend', lambda *_, **__: store)
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


def test_nothing_else_unpickles():
    sources = [*(ROOT / 'mmcloformer').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
    for word in ('torch.load(', 'pickle.load', 'load_url', 'Unpickler('):
        names = {path.name for path in sources if word in path.read_text()}
        assert names <= {'files.py', 'unpickling.py'}
