"""The tools around pre-training on formulas."""

import json

import cv2
import pytest
import torch

from mmcloformer import CloFormer
from mmcloformer.errors import ConfigError

SEGMENTOR = 'configs/demo/semantic-fpn_cloformer_xxs_shapes.py'


def test_a_sheet_has_a_class_a_row(run_tool, tmp_path):
    sheet = tmp_path / 'sheet.png'
    run_tool('draw_formula.py', sheet, '--classes', 2, '--instances', 3, '--size', 32)
    assert cv2.imread(str(sheet)).shape == (2 * 36 + 4, 3 * 36 + 4, 3)


@pytest.mark.parametrize('option', ['--classes', '--instances', '--size'])
def test_a_sheet_of_nothing_is_refused(tool_main, option, tmp_path):
    with pytest.raises(ConfigError, match=f'{option} is 0; give 1 or more'):
        tool_main('draw_formula.py', tmp_path / 'sheet.png', option, 0)


@pytest.mark.slow
def test_two_starts_are_compared(run_tool, shapes, tmp_path):
    weights, out = tmp_path / 'weights.pth', tmp_path / 'out.json'
    torch.save(CloFormer('xxs', out_indices=(3,)).state_dict(), weights)
    options = ['train_cfg.max_iters=4', 'train_cfg.val_interval=2']
    for split in ('train', 'val', 'test'):
        options.append(f'{split}_dataloader.dataset.data_root={shapes}/ade20k')
    command = ['compare_pretraining.py', SEGMENTOR, weights, '--work-dir', tmp_path / 'runs']
    command += ['--seeds', 2, '--out', out, '--cfg-options', *options]
    printed = run_tool(*command)
    # Without an output norm of the first three stages, which a classifier has none of.
    assert printed.count('new: norm0, norm1, norm2') == 2
    results = json.loads(out.read_text())
    assert results['metric'] == 'mIoU'
    assert results['versions']['torch'] == torch.__version__.partition('+')[0]
    for runs in results['runs'].values():
        assert [list(run) for run in runs] == [['2', '4']] * 2
    first, second = (runs[0] for runs in results['runs'].values())
    assert first != second
    assert '| iteration | random | pre-trained |' in printed
    assert 'choose a new folder' in run_tool(*command, code=1)
