"""Every host's demo config through all tools, on a few scenes.

One run of `tools/misc/demo_all.py` serves most tests. Here its tools run in one process.
"""

import contextlib
import io
import json
import pickle
import re
import subprocess
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, coco_options, load_tool

CLASSIFIER = 'cloformer_xxs_shapes'
DETECTOR = 'mask-rcnn_cloformer_xxs_shapes'
SEGMENTOR = 'semantic-fpn_cloformer_xxs_shapes'
FEW_BOXES = dict(nms_pre=50, max_per_img=10)
LOG_ALL = dict(logger=dict(interval=1))
ONE_EPOCH = dict(train_cfg=dict(max_epochs=1), default_hooks=LOG_ALL)
TWO_ITERATIONS = dict(
    train_cfg=dict(max_iters=2, val_interval=2),
    default_hooks=LOG_ALL | dict(checkpoint=dict(interval=2)),
)


def demo(name):
    return f'configs/demo/{name}.py'


def loaders(root):
    """What a demo config needs to find its data elsewhere."""
    loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=str(root)))
    return {f'{split}_dataloader': loader for split in ('train', 'val', 'test')}


@pytest.fixture(scope='module')
def root(shapes, tool_main, tmp_path_factory):
    """A folder with short configs, and what `demo_all.py` made of them."""
    root = tmp_path_factory.mktemp('demo')
    annotations = dict(ann_file=f'{shapes}/coco/annotations/instances_val2017.json')
    changes = {
        # First, to see that the others are tried nevertheless.
        'broken': (DETECTOR, loaders(root / 'nowhere')),
        DETECTOR: (
            DETECTOR,
            loaders(shapes / 'coco')
            | ONE_EPOCH
            | dict(val_evaluator=annotations, test_evaluator=annotations)
            # Untrained scores are all below the usual threshold, and without a box there is no AP.
            | dict(
                model=dict(
                    train_cfg=dict(rpn_proposal=FEW_BOXES),
                    test_cfg=dict(rpn=FEW_BOXES, rcnn=dict(score_thr=0.0)),
                )
            ),
        ),
        SEGMENTOR: (SEGMENTOR, loaders(shapes / 'ade20k') | TWO_ITERATIONS),
        CLASSIFIER: (CLASSIFIER, loaders(shapes / 'imagenet') | ONE_EPOCH),
    }
    for name, (base, change) in changes.items():
        lines = [f'{key} = {value!r}' for key, value in change.items()]
        lines.insert(0, f'_base_ = {str(ROOT / demo(base))!r}')
        (root / f'{name}.py').write_text('\n'.join(lines))
    configs = [root / f'{name}.py' for name in changes]

    def run(tool, *args):
        try:
            tool_main(Path(tool).name, *args)
        except Exception as error:
            raise subprocess.CalledProcessError(1, ['python', tool]) from error

    printed = io.StringIO()
    with (
        mock.patch.dict(load_tool('demo_all.py')['main'].__globals__, run=run),
        contextlib.redirect_stdout(printed),
        pytest.raises(SystemExit, match='1'),
    ):
        tool_main('demo_all.py', *configs, '--work-dir', root / 'work')
    output = printed.getvalue()
    (root / 'table.txt').write_text(output[output.index('task  ') :])
    return root


def test_the_table_has_a_row_for_each_config_failed_ones_too(root):
    header, *rows = (root / 'table.txt').read_text().splitlines()[: 1 + 4]
    assert header.split() == ['task', 'config', 'metric', 'value', 'seconds']
    assert re.fullmatch(r'FAILED +broken +train.py +exit 1 +\d+', rows[0])
    expected = [
        ('instance segmentation', DETECTOR, 'coco/segm_mAP'),
        ('semantic segmentation', SEGMENTOR, 'mIoU'),
        ('classification', CLASSIFIER, 'accuracy/top1'),
    ]
    for row, (task, name, metric) in zip(rows[1:], expected, strict=True):
        *cells, value, seconds = re.split('  +', row)
        assert cells == [task, name, metric]
        assert float(seconds) > 0
        (metrics,) = (root / 'work' / name).glob('*/*.json')
        assert float(value) == pytest.approx(json.loads(metrics.read_text())[metric], abs=6e-4)


@pytest.mark.parametrize(
    ('name', 'images'),
    [
        (DETECTOR, 'coco/val2017/*.png'),
        (SEGMENTOR, 'ade20k/images/validation/*.jpg'),
        (CLASSIFIER, 'imagenet/val/*/*.JPEG'),
    ],
)
def test_every_image_of_the_test_is_drawn(root, shapes, name, images):
    images = list(shapes.glob(images))
    assert len(images) >= 4
    work_dir = root / 'work' / name
    pictures = [path for path in work_dir.glob('*/pictures/**/*') if path.is_file()]
    assert len(pictures) == len(images)
    for image in images:
        (picture,) = (p for p in pictures if image.stem in p.name)
        with Image.open(picture) as drawn:
            assert drawn.height >= 128
    assert (work_dir / 'curves.png').is_file()


def test_a_classifiers_pictures_have_the_images_colours(root, shapes):
    for image in shapes.glob('imagenet/val/*/*.JPEG'):
        (picture,) = (root / 'work' / CLASSIFIER).glob(f'*/pictures/*/{image.name}*')
        # The words stand at the top.
        expected, drawn = (
            np.asarray(Image.open(path).convert('RGB').resize((64, 64)))[32:].mean(axis=(0, 1))
            for path in (image, picture)
        )
        assert drawn == pytest.approx(expected, abs=4)


def test_label_maps_can_be_kept_without_the_logits(root, tool_main):
    checkpoint = (root / 'work' / SEGMENTOR / 'last_checkpoint').read_text()
    kept = root / 'predictions.pkl'
    tool_main(
        'test.py', root / f'{SEGMENTOR}.py', checkpoint, '--work-dir', root / 'kept', '--out', kept
    )
    predictions = pickle.loads(kept.read_bytes())
    assert len(predictions) == 4
    for sample in predictions:
        assert sample['pred_sem_seg']['data'].shape == (1, 128, 128)
        assert 'seg_logits' not in sample


@pytest.mark.parametrize(
    ('name', 'fresh'),
    [('retinanet_cloformer_xxs_shapes', 'norm1, norm2'), (SEGMENTOR, 'norm0, norm1, norm2')],
)
def test_pre_training_to_downstream_is_one_step(root, shapes, run_logged, tmp_path, name, fresh):
    """What train.py wrote for the classifier goes into a detector and a segmentor as it is."""
    pretrained = root / 'work' / CLASSIFIER / 'epoch_1.pth'
    options = (
        ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
        + [f'{split}_dataloader.dataset.data_root={shapes}/ade20k' for split in ('train', 'val')]
        if name == SEGMENTOR
        else [
            'train_cfg.max_epochs=1',
            'model.bbox_head.stacked_convs=1',
            *coco_options(shapes / 'coco'),
        ]
    )
    log = run_logged(
        'train.py', ROOT / demo(name), '--cfg-options', *options,
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={pretrained}',
        'optim_wrapper.optimizer.lr=0.0', work_dir=tmp_path,
    )  # fmt: skip
    assert re.search(rf'CloFormer: loaded 349 of \d+ tensors, new: {fresh}\n', log)
    before, after = (
        torch.load(path, weights_only=False)['state_dict']
        for path in (pretrained, (tmp_path / 'last_checkpoint').read_text())
    )
    shared = [key for key in before if key.startswith('backbone.') and before[key].ndim > 1]
    assert len(shared) > 100
    for key in shared:
        assert torch.equal(after[key], before[key]), key


@pytest.mark.parametrize(
    ('found', 'reason'),
    [
        (None, 'last_checkpoint'),
        ('', 'Expecting value'),
        ('{"time": 0.2}', 'no evaluation reported a result'),
    ],
)
def test_a_run_without_results_is_a_row(tool_main, tmp_path, monkeypatch, capsys, found, reason):
    work_dir = tmp_path / 'work/none'
    (work_dir / 'run').mkdir(parents=True)
    if found is not None:
        (work_dir / 'last_checkpoint').touch()
        (work_dir / 'run/run.json').write_text(found)
    monkeypatch.setattr(subprocess, 'run', lambda command, check: None)
    with pytest.raises(SystemExit, match='1'):
        tool_main('demo_all.py', 'none.py', '--work-dir', tmp_path / 'work')
    assert re.search(rf'FAILED +none +results .*{reason}', capsys.readouterr().out)


def test_the_configs_are_found_from_any_folder(tool_main, tmp_path, monkeypatch, capsys):
    def fail(command, check):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, 'run', fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        tool_main('demo_all.py')
    rows = capsys.readouterr().out
    assert all(path.stem in rows for path in (ROOT / 'configs/demo').glob('*.py'))
