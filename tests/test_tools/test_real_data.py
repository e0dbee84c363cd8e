"""Every config trains for two iterations and evaluates on real images."""

import json

import numpy as np
import pytest

from tests.conftest import ROOT, coco_options

CONFIGS = sorted(
    path.stem
    for path in (ROOT / 'configs').glob('*.py')
    if path.stem.endswith(('_coco', '_ade20k', '_imagenet'))
)
pytestmark = pytest.mark.slow


def options(name, root):
    """Small images and few of them; evaluation of segmentors at the recipe's own size."""
    data = 'train_dataloader.dataset'
    short = ['train_dataloader.batch_size=2', 'default_hooks.logger.interval=1']
    few = [f'{data}.indices=4', 'val_dataloader.dataset.indices=3']
    if name.endswith('imagenet'):
        classes = sorted(path.name for path in (root / 'imagenet' / 'train').iterdir())
        return [
            *short,
            *few,
            'train_cfg.max_epochs=1',
            'model.head.num_classes=100',
            'data_preprocessor.num_classes=100',
            *(
                f'{split}_dataloader.dataset.{field}'
                for split in ('train', 'val')
                for field in (
                    f'data_root={root}/imagenet',
                    f'metainfo.classes={json.dumps(classes, separators=(",", ":"))}',
                )
            ),
        ]
    if name.endswith('ade20k'):
        return [
            *short,
            'val_dataloader.dataset.indices=3',
            'train_cfg.max_iters=2',
            'train_cfg.val_interval=2',
            f'{data}.pipeline.2.scale=(512,128)',
            f'{data}.pipeline.3.crop_size=(128,128)',
            'model.data_preprocessor.size=(128,128)',
            *(
                f'{split}_dataloader.dataset.data_root={root}/ade/ADEChallengeData2016'
                for split in ('train', 'val')
            ),
        ]
    if 'ms-3x' in name:
        choice = f'{data}.pipeline.3.transforms'
        resizes = [
            f'{choice}.{step}.scales=[(160,128),(160,160)]' for step in ('0.0', '1.0', '1.2')
        ]
    else:
        resizes = [f'{data}.pipeline.2.scale=(160,160)']
    threshold = 'rcnn.score_thr' if name.startswith('mask-rcnn') else 'score_thr'
    return [
        *short,
        *few,
        *coco_options(root / 'coco'),
        'train_cfg.max_epochs=1',
        *resizes,
        'val_dataloader.dataset.pipeline.1.scale=(160,160)',
        # Untrained scores are all below the usual threshold, and without a box there is no AP.
        f'model.test_cfg.{threshold}=0.0',
    ]


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=[] if '_xxs_' in name else pytest.mark.nightly) for name in CONFIGS],
)
def test_it_trains_and_evaluates(name, run_logged, real_data, tmp_path):
    log = run_logged(
        'train.py', ROOT / f'configs/{name}.py', '--cfg-options', *options(name, real_data),
        work_dir=tmp_path,
    )  # fmt: skip
    lines = [
        json.loads(line)
        for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    ]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    expected = {
        'retinanet': ['coco/bbox_mAP'],
        'mask-rcnn': ['coco/bbox_mAP', 'coco/segm_mAP'],
        'semantic-fpn': ['mIoU'],
        'upernet': ['mIoU'],
        'cloformer': ['accuracy/top1', 'accuracy/top5'],
    }[name.partition('_')[0]]
    for metric in expected:
        assert 0 <= lines[-1][metric] <= 100
    assert (tmp_path / 'last_checkpoint').is_file(), log[-2000:]
