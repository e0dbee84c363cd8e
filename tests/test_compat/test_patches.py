import os
import subprocess
import sys
from importlib import import_module

import mmcv.ops
import mmengine.runner.checkpoint
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import CheckpointLoader

from mmcloformer.compat import PATCHES, apply_patches, undo_patches
from mmcloformer.compat.patch import ABSENT, read_place
from mmcloformer.errors import CheckpointError
from tests.payload import Payload
from tests.test_compat.host_state import changes, snapshot

PLACES = {place for patch in PATCHES for place in patch.originals}
HOST_BASES = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmseg::_base_/models/fpn_r50.py',
    'mmpretrain::_base_/models/resnet50.py',
]


@pytest.fixture
def undone():
    """The hosts without any patch."""
    undo_patches()
    yield
    apply_patches()


def run(code, **env):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize('base', [*HOST_BASES, 'mmcloformer::retinanet_cloformer_xs_coco.py'])
def test_configs_of_every_host_and_of_this_package_can_be_bases(tmp_path, base):
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n')
    assert 'backbone' in Config.fromfile(tmp_path / 'config.py').model


def test_mmengines_hub_finds_the_configs_of_this_package():
    assert get_config('mmcloformer::retinanet_cloformer_xs_coco.py').model.backbone.arch == 'xs'


def test_undoing_restores_the_hosts_objects_and_can_be_repeated(undone):
    for place in PLACES:
        owner = getattr(read_place(place), '__module__', None) or ''
        assert not owner.startswith('mmcloformer'), place
    for place in ('sys.modules[mmcv._ext]', 'mmcv._ext'):
        value = read_place(place)
        assert value is ABSENT or 'stand-in' not in (value.__doc__ or '')
    before, modules = snapshot(), set(sys.modules)
    undo_patches()
    assert not changes(before, snapshot(), modules)


def test_applying_again_changes_nothing_also_after_undoing(tmp_path):
    before, modules = snapshot(), set(sys.modules)
    apply_patches()
    assert not changes(before, snapshot(), modules)
    for _ in range(2):
        undo_patches()
        undone = snapshot()
        assert changes(before, undone, modules) <= PLACES
        assert 'mmcloformer://' not in CheckpointLoader._schemes
        apply_patches()
        assert not changes(before, snapshot(), modules)
    # The first prefix that matches is used, and '' matches everything.
    assert list(CheckpointLoader._schemes) == sorted(CheckpointLoader._schemes, reverse=True)
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict=Payload(tmp_path / 'touched')), path)
    with pytest.raises(CheckpointError, match='refused'):
        CheckpointLoader.load_checkpoint(str(path))
    with pytest.raises(CheckpointError, match='no weights'):
        CheckpointLoader.load_checkpoint('mmcloformer://absent')
    assert len(mmcv.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)[1]) == 1
    import_module('mmcv._ext')


def test_a_scheme_that_another_package_registers_survives_undoing():
    CheckpointLoader.register_scheme('other://', print)
    try:
        undo_patches()
        assert CheckpointLoader._schemes['other://'] is print
    finally:
        apply_patches()
        del CheckpointLoader._schemes['other://']


def test_importing_changes_the_listed_places_and_undoing_restores_them_all():
    """Of everything in every module of a host that a script imported before."""
    code = """
import contextlib, sys
import mmengine.runner, mmengine.hub, mmengine.dist, mmcv.cnn.bricks.transformer
with contextlib.suppress(ModuleNotFoundError):
    import mmdet.apis
from tests.test_compat.host_state import changes, snapshot
before, modules = snapshot(), set(sys.modules)
import mmcloformer
from mmcloformer.compat import PATCHES, undo_patches
changed = changes(before, snapshot(), modules)
places = {place for patch in PATCHES for place in patch.originals}
assert all(patch.why.endswith('.') for patch in PATCHES) and len(places) > 8
undo_patches()
print(len(before) > 5000, len(changed) > 8, changed - places, changes(before, snapshot(), modules))
"""
    assert run(code) == 'True True set() set()'


@pytest.mark.parametrize(('value', 'module'), [('0', 'mmengine'), ('false', 'mmcloformer')])
def test_an_environment_variable_leaves_safe_loading_out(undone, monkeypatch, value, module):
    with monkeypatch.context() as context:
        context.setenv('MMCLOFORMER_SAFE_LOADING', value)
        apply_patches()
    checkpoint = mmengine.runner.checkpoint
    names = ('x.pth', 'https://x', 's3://x')
    loaders = [CheckpointLoader._get_checkpoint_loader(name) for name in names]
    assert all(loader.__name__.startswith('load_from_') for loader in loaders)  # mmengine logs it.
    loaders += [checkpoint.load_from_http, getattr(checkpoint, '_safe_torch_load', loaders[0])]
    assert {loader.__module__.partition('.')[0] for loader in loaders} == {module}
    assert hasattr(mmengine.runner.Runner.resume, '__wrapped__') == (module == 'mmcloformer')
    assert 'mmcloformer://' in CheckpointLoader._schemes


@pytest.mark.parametrize(
    ('absent', 'is_stack'), [('mmengine', True), ('mmcv', True), ('cv2', False), ('libGL', False)]
)
def test_only_a_missing_host_stack_is_said_to_be_missing(tmp_path, absent, is_stack):
    if absent == 'libGL':
        (tmp_path / 'mmcv.py').write_text('raise ImportError("libGL.so.1: cannot open")')
    code = f"""
import sys
class Finder:
    def find_spec(self, name, *args):
        if name == {absent!r}:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Finder())
sys.path.insert(0, {str(tmp_path)!r})
import mmcloformer
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'Error' in done.stderr
    assert ('mmcloformer[onedl]' in done.stderr) == is_stack
