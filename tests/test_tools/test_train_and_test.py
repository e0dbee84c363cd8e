"""The two main tools on files. They run in this process, since each host takes seconds to import;
test_mishaps.py and test_check_dataset.py start them as a user does."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch

from mmcloformer.checkpoint import read_checkpoint
from tests import released
from tests.conftest import ROOT, coco_options
from tests.tiny import write_segmentor

# Two iterations per epoch, and the settings of worker processes, which torch refuses without any.
# Untrained scores are all below the usual threshold, and without a box there is no AP.
CONFIG = """
_base_ = '{root}/configs/demo/retinanet_cloformer_xxs_shapes.py'
loader = dict(num_workers=0, persistent_workers=True, prefetch_factor=2)
resize = dict(type='Resize', scale=(64, 64))
train_dataloader = dict(
    **loader, dataset=dict(data_root='{data}/', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), resize,
        dict(type='PackDetInputs'),
    ]),
)
val_dataloader = test_dataloader = dict(**loader, dataset=dict(data_root='{data}/'))
val_evaluator = test_evaluator = dict(ann_file='{data}/annotations/instances_val2017.json')
model = dict(
    neck=dict(out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
    test_cfg=dict(score_thr=0.0, nms_pre=50),
)
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope='module')
def config(shapes, tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'config.py'
    path.write_text(CONFIG.format(root=ROOT, data=shapes / 'coco'))
    return path


@pytest.fixture(scope='module')
def trained(run_logged, config, tmp_path_factory):
    """The folder of one epoch, trained at a rate scaled by the batch size."""
    work_dir = tmp_path_factory.mktemp('work')
    log = run_logged('train.py', config, '--auto-scale-lr', '--cfg-options', work_dir=work_dir)
    (work_dir / 'train.log').write_text(log)
    return work_dir


def test_training_leaves_a_checkpoint_and_scales_the_rate(trained):
    checkpoint = read_checkpoint(trained / 'epoch_1.pth')
    assert checkpoint['meta']['iter'] == 2
    assert any(key.startswith('backbone.stem') for key in checkpoint['state_dict'])
    log = (trained / 'train.log').read_text()
    assert 'coco/bbox_mAP:' in log
    assert 'Scaling the original LR by 0.25' in log
    scalars = min(trained.glob('*/vis_data/scalars.json'))
    lr = json.loads(scalars.read_text().splitlines()[0])['lr']
    assert lr == pytest.approx(1e-3 * 0.01 * 4 / 16, rel=0.05)


def test_resume_goes_on_where_it_stopped(run_logged, config, trained, tmp_path):
    checkpoint = trained / 'epoch_1.pth'
    for resume, work_dir in ([['--resume'], trained], [['--resume', checkpoint], tmp_path]):
        log = run_logged(
            'train.py', config, *resume, '--cfg-options', 'train_cfg.max_epochs=2',
            'default_hooks.checkpoint.max_keep_ckpts=5', work_dir=work_dir,
        )  # fmt: skip
        assert 'resumed epoch: 1, iter: 2' in log
        assert 'Epoch(train) [1]' not in log
        meta = read_checkpoint(work_dir / 'epoch_2.pth')['meta']
        assert (meta['epoch'], meta['iter']) == (2, 4)


def test_testing_prints_ap_dumps_and_draws(run_logged, config, trained, tmp_path):
    log = run_logged(
        'test.py', config, trained / 'epoch_1.pth', '--out', tmp_path / 'predictions.pkl',
        '--show-dir', 'pictures', '--cfg-options', work_dir=tmp_path,
    )  # fmt: skip
    assert 'coco/bbox_mAP:' in log
    with (tmp_path / 'predictions.pkl').open('rb') as file:
        assert len(pickle.load(file)) == 4
    assert len(list(tmp_path.glob('*/pictures/*.png'))) == 4
    metrics = json.loads(next(tmp_path.glob('*/*.json')).read_text())
    assert 0 <= metrics['coco/bbox_mAP'] <= 1


SEVERAL = """
_base_ = '{config}'
one = _base_.test_dataloader.dataset
test_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[one, one]))
test_evaluator = dict(
    _delete_=True, type='MultiDatasetsEvaluator', dataset_prefixes=['a', 'b'],
    metrics=[_base_.test_evaluator] * 2,
)
"""


def test_predictions_of_several_data_sets_are_dumped(run_logged, config, trained, tmp_path):
    (tmp_path / 'config.py').write_text(SEVERAL.format(config=config))
    log = run_logged(
        'test.py', tmp_path / 'config.py', trained / 'epoch_1.pth',
        '--out', tmp_path / 'predictions.pkl', '--cfg-options', work_dir=tmp_path,
    )  # fmt: skip
    assert 'b/coco/bbox_mAP:' in log
    with (tmp_path / 'predictions.pkl').open('rb') as file:
        assert len(pickle.load(file)) == 8


def test_the_hosts_own_tool_runs_the_config(config, tmp_path):
    """As `mim train mmdet CONFIG` does: nothing of ours is imported but by the config."""
    tool = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    options = ['train_dataloader.persistent_workers=False', 'train_dataloader.prefetch_factor=None']
    options += ['val_dataloader=None', 'val_cfg=None', 'val_evaluator=None']
    done = subprocess.run(
        [sys.executable, tool, config, '--work-dir', tmp_path, '--cfg-options', *options],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_released_weights_to_a_detectors_training(
    tool_main, tool_error, run_logged, config, tmp_path
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
        'train.py', config, '--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={converted}', work_dir=tmp_path / 'work',
    )  # fmt: skip
    assert 'CloFormer: loaded 349 of 353 tensors, new: norm1, norm2' in log


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.backbone.arch=m', "arch='m' is unknown; use one of"),
        ('model.backbone.out_indices="(1,2,7)"', 'increasing stage numbers out of [0, 1, 2, 3]'),
    ],
)
def test_a_wrong_argument_of_the_backbone(tool_error, config, tmp_path, option, message):
    assert message in tool_error(
        'train.py', config, '--work-dir', tmp_path, '--cfg-options', option
    )


def test_a_file_where_a_folder_should_be(tool_error, config, tmp_path):
    file = tmp_path / 'file'
    file.touch()
    work = ['train.py', config, '--work-dir', file]
    out = ['test.py', config, 'x.pth', '--out', file / 'out.pkl', '--work-dir', tmp_path]
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


def test_missing_config(tool_error):
    assert 'error: config nothing.py does not exist' in tool_error('train.py', 'nothing.py')


def test_a_config_without_a_training(tool_error, tmp_path):
    (tmp_path / 'config.py').write_text("default_scope = 'mmdet'\ntrain_cfg = dict(max_epochs=1)")
    message = tool_error('train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'run')
    assert 'no config of a training: it has no train_dataloader, optim_wrapper' in message


def test_bad_checkpoints(tool_error, config, trained, tmp_path):
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes((trained / 'epoch_1.pth').read_bytes()[:100_000])
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict={'conv1.weight': torch.zeros(1)}), other)
    for tool, checkpoint, word in (
        ('test.py', [damaged], 'damaged'),
        ('test.py', [other], 'not of this config'),
        ('test.py', [tmp_path / 'absent.pth'], 'does not exist'),
        ('train.py', ['--resume', damaged], 'damaged'),
        ('train.py', ['--resume', other], 'holds weights, but not all that resuming needs'),
    ):
        assert word in tool_error(tool, config, *checkpoint, '--work-dir', tmp_path)


def test_a_checkpoint_of_another_size_is_refused(tool_error, config, trained, tmp_path):
    message = tool_error(
        'test.py', config, trained / 'epoch_1.pth', '--work-dir', tmp_path,
        '--cfg-options', 'model.bbox_head.num_classes=7',
    )  # fmt: skip
    assert 'bbox_head.retina_cls.weight' in message


def test_out_needs_a_pickle(tool_error, config):
    assert '--out' in tool_error('test.py', config, 'any.pth', '--out', 'x.json')


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
        'train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options',
        'train_dataloader.batch_size=1', 'train_dataloader.num_workers=0',
    )  # fmt: skip
    assert 'train_dataloader.batch_size is 1. To change it, set train_dataloader.batch_s' in message
    assert 'Traceback' not in ''.join(capsys.readouterr())


def test_an_evaluators_file_that_is_not_its_loaders(tool_error, config, shapes, tmp_path):
    train = f'{shapes}/coco/annotations/instances_train2017.json'
    message = tool_error(
        'train.py', config, '--work-dir', tmp_path / 'run',
        '--cfg-options', f'val_evaluator.ann_file={train}',
    )  # fmt: skip
    assert f'val_evaluator.ann_file: is {train}' in message
    assert not list(tmp_path.glob('run/*'))


@pytest.mark.slow
def test_a_compiled_step_has_the_losses_of_a_plain_one(run_logged, config, tmp_path):
    logs = [
        run_logged('train.py', config, '--cfg-options', *options, work_dir=tmp_path / str(i))
        for i, options in enumerate(([], ['compile.backend=eager']))
    ]
    plain, same = (re.findall(r' loss: ([\d.]+)', log) for log in logs)
    assert 'compiled' in logs[1]
    assert len(plain) == 2
    assert plain == same
