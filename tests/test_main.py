"""`python -m mmcloformer`. The hosts' other tools run in one process in test_host_tools.py."""

import json
import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from mmcloformer.__main__ import find_script, main
from mmcloformer.apis.config import build_model
from mmcloformer.errors import UserError
from tests.conftest import ROOT

CONFIG = """
_base_ = '{root}/configs/demo/retinanet_cloformer_xxs_shapes.py'
test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}/', indices=2)
)
test_evaluator = dict(ann_file='{data}/annotations/instances_val2017.json')
model = dict(test_cfg=dict(score_thr=0.0))
"""


def test_a_tool_of_mmdet_in_a_process(shapes, tmp_path):
    config, weights = tmp_path / 'config.py', tmp_path / 'weights.pth'
    config.write_text(CONFIG.format(root=ROOT, data=shapes / 'coco'))
    torch.save(dict(state_dict=build_model(Config.fromfile(config)).state_dict()), weights)
    done = subprocess.run(
        [sys.executable, '-m', 'mmcloformer', 'mmdet::test.py', config, weights],
        cwd=tmp_path,
        env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_WAIT_POLICY='PASSIVE'),
        capture_output=True,
        text=True,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert 'coco/bbox_mAP:' in output


SCRIPT = """
import json, sys
from pathlib import Path
from beside import NAME
found = [__name__, *sys.argv, sys.path[0], NAME, sys.modules['__main__'].__file__]
Path(sys.argv[1]).write_text(json.dumps(found))
sys.exit(int(sys.argv[-1]))
"""


@pytest.mark.parametrize('code', [0, 3])
def test_a_script_runs_as_python_runs_it(code, tmp_path, monkeypatch):
    script, out = tmp_path / 'script.py', tmp_path / 'out.json'
    script.write_text(SCRIPT)
    (tmp_path / 'beside.py').write_text('NAME = "beside"')
    monkeypatch.setattr(sys, 'path', ['somewhere', *sys.path])
    monkeypatch.delitem(sys.modules, 'beside', raising=False)
    arguments = [str(out), '--help', '--out', 'a b', str(code)]
    monkeypatch.setattr(sys, 'argv', ['__main__.py', str(script), *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    expected = ['__main__', str(script), *arguments, str(tmp_path), 'beside', str(script)]
    assert json.loads(out.read_text()) == expected


def test_an_error_of_ours_in_a_script_is_one_line(tmp_path, monkeypatch):
    script = tmp_path / 'script.py'
    script.write_text('from mmcloformer.errors import DataError\nraise DataError("why")')
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'argv', ['__main__.py', str(script)])
    with pytest.raises(SystemExit, match='error: why'):
        main()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('absent.py', 'absent.py is not a Python file; give a path, or PACKAGE::TOOL'),
        ('.', r'\. is not a Python file'),
        ('tools/dist_train.sh', 'dist_train.sh is not a Python file'),
        ('mmdet::confusion_matrix.py', 'use mmdet::analysis_tools/confusion_matrix.py'),
        ('mmdet::absent.py', r'mmdet has no tool absent\.py; use one of .*test\.py'),
        ('absent::test.py', 'no package absent with tools'),
        ('mmdet/::test.py', 'no package mmdet/ with tools'),
        ('json::tool.py', 'no package json with tools'),
        ('::test.py', 'no package  with tools'),
    ],
)
def test_scripts_that_are_not_there(name, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message):
        find_script(name)


def test_our_own_tools_have_the_short_form_too():
    assert find_script('mmcloformer::misc/check_dataset.py').is_file()
