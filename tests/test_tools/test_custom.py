"""The templates for a user's own data, filled in as their comments say and run by the tools."""

import json
import re

import pytest
import torch
from mmengine.config import Config

from mmcloformer import CloFormer
from tests.conftest import ROOT

DETECTOR = 'retinanet_cloformer_xxs'
INSTANCES = 'mask-rcnn_cloformer_xxs'
SEGMENTOR = 'semantic-fpn_cloformer_xxs'
CLASSIFIER = 'cloformer_xxs'
PACKAGED = 'mmcloformer://cloformer_xxs_tiny-imagenet'
ONCE = [
    'default_hooks.logger.interval=1', 'train_dataloader.batch_size=2', 'param_scheduler=[]',
    'train_dataloader.dataset.indices=4', 'val_dataloader.dataset.indices=2',
    *(
        f'{split}_dataloader.{field}'
        for split in ('train', 'val')
        for field in ('num_workers=0', 'persistent_workers=False')
    ),
]  # fmt: skip
COCO = [
    *ONCE, 'train_cfg.max_epochs=1', 'model.neck.out_channels=16',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(64,64)',
]  # fmt: skip
# An untrained head finds nothing at the usual threshold.
SMALL = {
    DETECTOR: [
        *COCO, 'model.test_cfg.score_thr=0', 'model.test_cfg.nms_pre=50',
        *(f'model.bbox_head.{name}' for name in ('in_channels=16', 'feat_channels=16')),
    ],
    INSTANCES: [
        *COCO, 'model.test_cfg.rcnn.score_thr=0', 'model.rpn_head.in_channels=16',
        *(
            f'model.roi_head.{part}'
            for head in ('bbox', 'mask')
            for part in (f'{head}_roi_extractor.out_channels=16', f'{head}_head.in_channels=16')
        ),
        *(
            f'model.{split}.{field}'
            for split in ('train_cfg.rpn_proposal', 'test_cfg.rpn')
            for field in ('nms_pre=50', 'max_per_img=10')
        ),
    ],
    SEGMENTOR: [
        *ONCE, 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
        'model.data_preprocessor.size=(64,64)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'val_dataloader.dataset.pipeline.1.scale=(64,64)',
    ],
    CLASSIFIER: [
        *ONCE, 'train_cfg.max_epochs=1',
        'train_dataloader.dataset.pipeline.1.scale=64',
        'val_dataloader.dataset.pipeline.1.scale=64',
        'val_dataloader.dataset.pipeline.2.crop_size=64',
    ],
}  # fmt: skip
METRIC = {
    DETECTOR: 'coco/bbox_mAP:',
    INSTANCES: 'coco/segm_mAP:',
    SEGMENTOR: 'mIoU:',
    CLASSIFIER: 'accuracy/top1:',
}


@pytest.fixture
def fill_in(tmp_path):
    """Copy a template and set lines of it, each named by how it starts."""

    def fill_in(name, **lines):
        text = (ROOT / f'configs/{name}_custom.py').read_text()
        text = text.replace("_base_ = '", f"_base_ = '{ROOT}/configs/")
        for start, value in lines.items():
            text, count = re.subn(rf'^{start} = .*$', f'{start} = {value}', text, flags=re.M)
            assert count == 1
        path = tmp_path / 'mine.py'
        path.write_text(text)
        return path

    return fill_in


@pytest.mark.parametrize('name', SMALL)
def test_it_inherits_the_recipe_and_starts_from_the_weights(name):
    cfg = Config.fromfile(ROOT / f'configs/{name}_custom.py')
    suffix = {SEGMENTOR: 'ade20k', CLASSIFIER: 'imagenet'}.get(name, 'coco')
    base = Config.fromfile(ROOT / f'configs/{name}_{suffix}.py')
    assert cfg.model.backbone.init_cfg.checkpoint == PACKAGED
    if name == CLASSIFIER:  # It fine-tunes with a rate and augmentation of its own.
        assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
        return
    assert cfg.optim_wrapper == base.optim_wrapper
    steps = [[step.type for step in c.train_dataloader.dataset.pipeline] for c in (cfg, base)]
    assert steps[0] == steps[1]
    assert cfg.auto_scale_lr.base_batch_size == base.auto_scale_lr.base_batch_size


# The test after it trains detectors.
@pytest.mark.parametrize('name', [INSTANCES, SEGMENTOR, CLASSIFIER])
def test_generated_sets(name, run_logged, fill_in, shapes, tmp_path):
    folder = {SEGMENTOR: 'ade20k', CLASSIFIER: 'imagenet'}.get(name, 'coco')
    config = fill_in(name, root=repr(f'{shapes}/{folder}'))
    log = run_logged('train.py', config, '--cfg-options', *SMALL[name], work_dir=tmp_path / 'work')
    assert 'CloFormer: loaded' in log
    assert METRIC[name] in log


def test_it_starts_from_a_classifier_and_from_a_detector(
    run_logged, fill_in, shapes, tmp_path, capsys
):
    root = repr(f'{shapes}/coco/')
    backbone = CloFormer('xxs', out_indices=(3,)).state_dict()
    classifier = tmp_path / 'imagenet.pth'
    torch.save({f'backbone.{key}': value for key, value in backbone.items()}, classifier)
    weights = f"dict(type='Pretrained', checkpoint='{classifier}')"
    config = fill_in(DETECTOR, root=root, weights=weights)
    options = ['--cfg-options', *SMALL[DETECTOR]]
    log = run_logged('train.py', config, '--auto-scale-lr', *options, work_dir=tmp_path / 'first')
    assert 'CloFormer: loaded' in log
    assert METRIC[DETECTOR] in log

    # A detector of other classes, as COCO's 80: all but the last layer of its head is taken.
    config = fill_in(DETECTOR, root=root, classes="('ring', 'star', 'triangle')")
    with config.open('a') as file:
        file.write(f"load_from = '{tmp_path / 'first' / 'epoch_1.pth'}'\n")
    run_logged('train.py', config, *options, work_dir=tmp_path / 'second')
    # The host prints this and does not log it.
    assert 'size mismatch for bbox_head.retina_cls.weight' in capsys.readouterr().out
    weights = torch.load(tmp_path / 'second' / 'epoch_1.pth', weights_only=False)['state_dict']
    assert len(weights['bbox_head.retina_cls.bias']) == 9 * 3


def test_a_wrong_class_stops_before_training(tool_error, fill_in, shapes):
    config = fill_in(DETECTOR, root=repr(f'{shapes}/coco/'), classes="('ring', 'cube')")
    message = tool_error('train.py', config)
    assert 'no category is called cube; there are ring, square, star, triangle' in message


FRUITS = "dict(ann_file='annotations.json', data_prefix=dict(img='images/'))"
REAL = {
    'boxes': (
        DETECTOR,
        dict(
            root="'{data}/bccd/'",
            classes="('RBC', 'WBC', 'Platelets')",
            train="dict(ann_file='annotations/train.json', data_prefix=dict(img='images/'))",
            val="dict(ann_file='annotations/val.json', data_prefix=dict(img='images/'))",
        ),
    ),
    'masks': (
        INSTANCES,
        dict(
            root="'{data}/fruits_nuts/'",
            classes="('date', 'fig', 'hazelnut')",
            train=FRUITS,
            val=FRUITS,
        ),
    ),
    'label maps': (
        SEGMENTOR,
        dict(
            root="'{data}/camvid'",
            classes='tuple("abcdefghijk")',
            zero_is_void='False',
            train="dict(img_path='images/train', seg_map_path='annotations/train')",
            val="dict(img_path='images/val', seg_map_path='annotations/val')",
        ),
    ),
    'folders': (CLASSIFIER, dict(root="'{data}/imagenet'", classes='{folders}')),
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', REAL)
def test_real_photographs(kind, run_logged, fill_in, real_data, tmp_path):
    name, lines = REAL[kind]
    folders = sorted(path.name for path in (real_data / 'imagenet/train').iterdir())
    values = {
        key: value.replace('{data}', str(real_data)).replace('{folders}', json.dumps(folders))
        for key, value in lines.items()
    }
    config = fill_in(name, **values)
    extra = []
    if kind == 'label maps':  # 11 is unlabelled.
        extra = ['model.decode_head.ignore_index=11', 'val_evaluator.ignore_index=11']
        extra += ['model.data_preprocessor.seg_pad_val=11']
        extra += [f'{split}_dataloader.dataset.ignore_index=11' for split in ('train', 'val')]
    log = run_logged(
        'train.py', config, '--cfg-options', *SMALL[name], *extra, work_dir=tmp_path / 'work'
    )
    assert METRIC[name] in log
