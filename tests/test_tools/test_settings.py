"""Settings of loaders and batches that the hosts crash on, through `train.py` and `test.py`."""

from tests.conftest import coco_options
from tests.tiny import write_classifier, write_detector, write_segmentor

NO_WORKERS = ('num_workers=0', 'persistent_workers=True', 'prefetch_factor=2')


def options(*loaders):
    return [f'{loader}_dataloader.{setting}' for loader in loaders for setting in NO_WORKERS]


def test_no_workers_in_mmdet(run_logged, shapes, tmp_path):
    config = write_detector(tmp_path / 'config.py', shapes, epochs=1)
    log = run_logged('train.py', config, '--cfg-options', *options('train'), work_dir=tmp_path)
    assert 'Epoch(train) [1][4/4]' in log


def test_no_workers_in_mmseg(run_logged, shapes, tmp_path):
    config = write_segmentor(tmp_path / 'config.py', shapes, iters=1)
    run_logged('train.py', config, '--cfg-options', *options('train', 'val'), work_dir=tmp_path)
    log = run_logged(
        'test.py', config, tmp_path / 'iter_1.pth', '--cfg-options', *options('test'),
        work_dir=tmp_path / 'test',
    )  # fmt: skip
    assert 'mIoU' in log


def test_no_workers_in_mmpretrain(run_logged, shapes, tmp_path):
    config = write_classifier(tmp_path / 'config.py', shapes, epochs=1)
    log = run_logged('train.py', config, '--cfg-options', *options('train'), work_dir=tmp_path)
    assert 'Epoch(train) [1]' in log


def test_global_pooling_and_one_image(tool_error, shapes, tmp_path, capsys):
    """As in UPerNet."""
    config = write_segmentor(tmp_path / 'config.py', shapes, iters=2)
    head = (
        "model['decode_head'] = dict(_delete_=True, type='PSPHead', in_channels=16, in_index=3, "
        "channels=16, num_classes=5, norm_cfg=dict(type='BN'), loss_decode=dict("
        "type='CrossEntropyLoss'))\n"
    )
    config.write_text(f'{config.read_text()}\n{head}')
    message = tool_error(
        'train.py', config, '--work-dir', tmp_path / 'run',
        '--cfg-options', 'train_dataloader.batch_size=1', *options('train'),
    )  # fmt: skip
    assert 'train_dataloader.batch_size is 1. To change it, set train_dataloader.batch_s' in message
    assert 'Traceback' not in ''.join(capsys.readouterr())


def test_an_evaluators_file_that_is_not_its_loaders(tool_error, shapes, tmp_path):
    config = write_detector(tmp_path / 'config.py', shapes, epochs=1)
    text = config.read_text()
    for line in ('val_dataloader = val_cfg', 'test_dataloader = test_cfg'):
        text = '\n'.join(row for row in text.splitlines() if not row.startswith(line))
    config.write_text(text)
    train = f'{shapes}/coco/annotations/instances_train2017.json'
    message = tool_error(
        'train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options',
        *coco_options(shapes / 'coco'), f'val_evaluator.ann_file={train}',
    )  # fmt: skip
    assert f'val_evaluator.ann_file: is {train}' in message
    assert not list(tmp_path.glob('run/*'))
