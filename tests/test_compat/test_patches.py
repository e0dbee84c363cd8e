import subprocess
import sys

import mmcv.ops
import pytest
from mmengine.config import Config, utils
from mmengine.runner import CheckpointLoader

from mmcloformer.compat.patches import apply_mends


@pytest.mark.parametrize(
    'base',
    [
        'mmdet::_base_/models/retinanet_r50_fpn.py',
        'mmseg::_base_/models/fpn_r50.py',
        'mmpretrain::_base_/models/resnet50.py',
    ],
)
def test_every_hosts_configs_can_be_bases(tmp_path, base):
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n')
    assert 'backbone' in Config.fromfile(tmp_path / 'config.py').model


def state():
    return mmcv.ops.nms, dict(CheckpointLoader._schemes), dict(utils.MODULE2PACKAGE)


def test_mends_are_idempotent():
    before = state()
    apply_mends()
    assert state() == before


def test_without_a_host_stack_the_import_says_what_to_install():
    code = "import sys; sys.modules['mmengine'] = None; import mmcloformer"
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'ImportError' in run.stderr
    assert 'mmcloformer[onedl]' in run.stderr
