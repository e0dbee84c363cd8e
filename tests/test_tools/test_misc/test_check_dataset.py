"""The tool as a whole; what it finds is tested beside the package."""

import shutil

import pytest

from tests.conftest import ROOT, coco_options
from tests.tiny import write_detector


def test_real_data_are_good(tool_main, real_data):
    output = tool_main(
        'check_dataset.py', ROOT / 'configs/mask-rcnn_cloformer_xs_coco.py', '--cfg-options',
        *coco_options(real_data / 'coco'),
    )  # fmt: skip
    assert 'all 166 samples are good (train 126, val 40), examined in' in output


def test_every_bad_file_is_listed_and_the_good_are_not(tool_error, shapes, tmp_path, capsys):
    root = shutil.copytree(shapes / 'coco', tmp_path / 'coco')
    missing, cut, empty = (root / 'train2017' / f'{number:012d}.png' for number in (2, 3, 7))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:1000])
    empty.write_bytes(b'')
    message = tool_error(
        'check_dataset.py', ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py',
        '--workers', 2, '--cfg-options', *coco_options(root),
    )  # fmt: skip
    output = '\n'.join(capsys.readouterr())
    for file, reason in ((missing, 'missing'), (cut, 'cut short'), (empty, 'empty')):
        assert f'{file} (train_dataloader.dataset): is {reason}' in output
    assert output.count('.png (') == 3
    assert 'error: 3 problems, listed above, in 12 samples (train 8, val 4)' in message
    assert 'Traceback' not in output


@pytest.mark.slow  # It starts a process; test_crashes.py has the quick tests.
def test_training_names_the_tool(run_tool, shapes, tmp_path):
    root = shutil.copytree(shapes / 'coco', tmp_path / 'coco')
    for file in (root / 'train2017').iterdir():
        file.write_bytes(file.read_bytes()[:500])
    config = write_detector(tmp_path / 'config.py', tmp_path, epochs=1)
    output = run_tool('train.py', config, '--work-dir', tmp_path / 'run', code=1)
    assert 'failed to load image' in output[output.index('Traceback') :]
    # The other worker may still warn.
    lines = [line for line in output.splitlines() if ' WARN:' not in line]
    assert f'tools/misc/check_dataset.py {config}' in lines[-2]
