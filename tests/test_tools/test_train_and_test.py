"""The two main tools on files. They run in this process, since each host takes seconds to import;
test_demo_all.py starts them as a user does."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch

from mmcloformer.checkpoint import read_checkpoint
from tests import released
from tests.conftest import ROOT, coco_options

DEMO = ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py'
# Untrained scores are all below the usual threshold, and without a box there is no AP.
SHORT = ['default_hooks.logger.interval=1', 'model.test_cfg.score_thr=0.0']


@pytest.fixture(scope='module')
def options(shapes):
    return [*coco_options(shapes / 'coco'), *SHORT]


@pytest.fixture(scope='module')
def trained(run_logged, options, tmp_path_factory):
    """The folder of one epoch, trained at a rate scaled by the batch size."""
    work_dir = tmp_path_factory.mktemp('work')
    log = run_logged(
        'train.py', DEMO, '--auto-scale-lr',
        '--cfg-options', *options, 'train_cfg.max_epochs=1', work_dir=work_dir,
    )  # fmt: skip
    (work_dir / 'train.log').write_text(log)
    return work_dir


def test_training_leaves_a_checkpoint_that_reads_safely(trained):
    checkpoint = read_checkpoint(trained / 'epoch_1.pth')
    assert checkpoint['meta']['iter'] == 2
    assert any(key.startswith('backbone.stem') for key in checkpoint['state_dict'])


def test_auto_scale_lr(trained):
    assert 'Scaling the original LR by 0.25' in (trained / 'train.log').read_text()
    scalars = min(trained.glob('*/vis_data/scalars.json'))
    lr = json.loads(scalars.read_text().splitlines()[0])['lr']
    assert lr == pytest.approx(1e-3 * 0.01 * 4 / 16, rel=0.05)


def test_resume_goes_on_where_it_stopped(run_logged, options, trained, tmp_path):
    checkpoint = trained / 'epoch_1.pth'
    for resume, work_dir in ([['--resume'], trained], [['--resume', checkpoint], tmp_path]):
        log = run_logged(
            'train.py', DEMO, *resume, '--cfg-options', *options, 'train_cfg.max_epochs=2',
            'default_hooks.checkpoint.max_keep_ckpts=5', work_dir=work_dir,
        )  # fmt: skip
        assert 'resumed epoch: 1, iter: 2' in log
        assert 'Epoch(train) [1]' not in log
        meta = read_checkpoint(work_dir / 'epoch_2.pth')['meta']
        assert (meta['epoch'], meta['iter']) == (2, 4)


def test_testing_prints_ap_dumps_and_draws(run_logged, options, trained, tmp_path):
    log = run_logged(
        'test.py', DEMO, trained / 'epoch_1.pth', '--out', tmp_path / 'predictions.pkl',
        '--show-dir', 'pictures', '--cfg-options', *options, work_dir=tmp_path,
    )  # fmt: skip
    assert 'coco/bbox_mAP:' in log
    with (tmp_path / 'predictions.pkl').open('rb') as file:
        assert len(pickle.load(file)) == 4
    assert len(list(tmp_path.glob('*/pictures/*.png'))) == 4
    metrics = json.loads(next(tmp_path.glob('*/*.json')).read_text())
    assert 0 <= metrics['coco/bbox_mAP'] <= 1


def test_the_hosts_own_tool_runs_the_config(options, tmp_path):
    """As `mim train mmdet CONFIG` does: nothing of ours is imported but by the config."""
    tool = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    done = subprocess.run(
        [sys.executable, tool, DEMO, '--work-dir', tmp_path,
         '--cfg-options', *options, 'train_cfg.max_epochs=1'],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_released_weights_to_a_detectors_training(
    tool_main, tool_error, run_logged, options, tmp_path
):
    source, converted = tmp_path / 'released.pth', tmp_path / 'out' / 'converted.pth'
    torch.save({'model': released.state_dict('xxs')}, source)
    output = tool_main('convert_checkpoint.py', source, converted)
    assert 'arch xxs, 1000 classes, 351 tensors' in output
    torch.load(converted, weights_only=True)
    assert 'exists' in tool_error('convert_checkpoint.py', source, converted)
    assert 'choose a name in .pth' in tool_error(
        'convert_checkpoint.py', source, tmp_path / 'converted.safetensors'
    )

    log = run_logged(
        'train.py', DEMO, '--cfg-options', *options, 'train_cfg.max_epochs=1',
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={converted}', work_dir=tmp_path / 'work',
    )  # fmt: skip
    assert 'CloFormer: loaded 349 of 353 tensors, new: norm1, norm2' in log


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('arch=m', "arch='m' is unknown; use one of"),
        ('out_indices="(1,2,7)"', 'increasing stage numbers out of [0, 1, 2, 3]'),
    ],
)
def test_a_wrong_argument_of_the_backbone(tool_error, options, tmp_path, option, message):
    assert message in tool_error(
        'train.py', DEMO, '--work-dir', tmp_path, '--cfg-options', *options,
        f'model.backbone.{option}',
    )  # fmt: skip


def test_a_file_where_a_folder_should_be(tool_error, options, tmp_path):
    file = tmp_path / 'file'
    file.touch()
    work = ['train.py', DEMO, '--work-dir', file, '--cfg-options', *options]
    out = ['test.py', DEMO, 'x.pth', '--out', file / 'out.pkl', '--work-dir', tmp_path]
    for command in (work, out):
        assert str(file) in tool_error(*command)


def test_missing_data(tool_error, tmp_path):
    message = tool_error(
        'train.py', ROOT / 'configs/retinanet_cloformer_xs_coco.py', '--work-dir', tmp_path,
        '--cfg-options', *coco_options(tmp_path / 'nowhere'),
    )  # fmt: skip
    assert f'{tmp_path}/nowhere' in message
    assert 'tools/dataset_converters/make_shapes.py' in message
    assert 'train_dataloader.dataset.data_root' in message


def test_missing_config(run_tool):
    """In a process of its own: the error is one line on stderr, the status is 1."""
    output = run_tool('train.py', 'nothing.py', code=1)
    assert 'error: config nothing.py does not exist' in output
    assert 'Traceback' not in output


def test_bad_checkpoints(tool_error, options, trained, tmp_path):
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes((trained / 'epoch_1.pth').read_bytes()[:100_000])
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict={'conv1.weight': torch.zeros(1)}), other)
    arguments = ('--work-dir', tmp_path, '--cfg-options', *options)
    for tool, checkpoint, word in (
        ('test.py', [damaged], 'damaged'),
        ('test.py', [other], 'not of this config'),
        ('test.py', [tmp_path / 'absent.pth'], 'does not exist'),
        ('train.py', ['--resume', damaged], 'damaged'),
        ('train.py', ['--resume', other], 'holds weights, but not all that resuming needs'),
    ):
        assert word in tool_error(tool, DEMO, *checkpoint, *arguments)


def test_a_checkpoint_of_another_size_is_refused(tool_error, options, trained, tmp_path):
    message = tool_error(
        'test.py', DEMO, trained / 'epoch_1.pth', '--work-dir', tmp_path,
        '--cfg-options', *options, 'model.bbox_head.num_classes=7',
    )  # fmt: skip
    assert 'bbox_head.retina_cls.weight' in message


def test_out_needs_a_pickle(tool_error, trained):
    assert '--out' in tool_error('test.py', DEMO, trained / 'epoch_1.pth', '--out', 'x.json')


def test_real_coco(run_logged, real_data, tmp_path):
    """A few steps of the real config on real images, small: train, evaluate during training."""
    log = run_logged(
        'train.py', ROOT / 'configs/retinanet_cloformer_xs_coco.py',
        '--cfg-options', *coco_options(real_data / 'coco'),
        'train_dataloader.dataset.indices=8', 'val_dataloader.dataset.indices=2',
        'train_dataloader.dataset.pipeline.2.scale=(160,160)',
        'val_dataloader.dataset.pipeline.1.scale=(160,160)',
        'train_cfg.max_epochs=1', *SHORT, work_dir=tmp_path,
    )  # fmt: skip
    assert 'coco/bbox_mAP:' in log
    assert (tmp_path / 'epoch_1.pth').is_file()
