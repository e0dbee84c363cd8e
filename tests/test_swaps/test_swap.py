"""docs/swap.md, line by line: host configs by name, unchanged but for the backbone."""

import argparse
import re
import shlex

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import InstanceData, PixelData

from mmcloformer.apis.config import build_model, read_config
from mmcloformer.compat.mmcv_ops.standin import MissingOpError
from mmcloformer.models import ARCHS, CloFormer
from tests.conftest import ROOT

DOC = (ROOT / 'docs' / 'swap.md').read_text()
README = (ROOT / 'README.md').read_text()
LINES = dict(re.findall(r'^\*\*([A-Z])\.\*\* .*?```python\n(.*?)```', DOC, re.M | re.S))
OPTIONS = dict(re.findall(r'^\*\*([A-Z])\.\*\* [^*]*```sh\n--cfg-options (.*?)\n```', DOC, re.M))
WORKING = re.findall(r'^\| `(\w+::\S+\.py)` \| ([A-Z]) \|$', DOC, re.M)
MISSING = re.findall(r'^\| `(\w+::\S+\.py)` \| ([A-Z]) \| `(\w+)`', DOC, re.M)
# One config per variant is tested quickly, on its cheapest host config; the others are nightly.
QUICK = (
    'faster-rcnn_r50', 'fcos', 'yolox', 'deformable-detr', 'detr_r50_8xb2', 'mmdet::mask2former',
    'segformer', 'upernet', 'pspnet', 'deeplabv3plus', 'fpn_r50_4xb4', 'ocrnet', 'resnet50',
)  # fmt: skip


def test_the_doc_has_lines_for_its_tables():
    assert len(WORKING) >= 30
    assert len(MISSING) == 4
    assert len(WORKING) + len(MISSING) == DOC.count('| `mm')
    used = {line for _, line, *_ in [*WORKING, *MISSING]}
    assert used == LINES.keys()
    assert OPTIONS.keys() <= LINES.keys()
    assert len(OPTIONS) == DOC.count('--cfg-options ')


def test_the_channels_in_the_readme():
    for block in re.findall(r'^```python\n(.*?)^```', README, re.M | re.S):
        if 'custom_imports' in block:
            model = Config.fromstring(block, '.py').model
            assert model.neck.in_channels == [*ARCHS[model.backbone.arch].embed_dims]


def test_the_doc_has_every_archs_channels():
    for arch in ('xxs', 'xs', 's'):
        channels = ', '.join(map(str, ARCHS[arch].embed_dims))
        assert f'| `{arch}` | {channels} |' in DOC


def test_a_new_style_config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        'from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead\n'
        'from mmcloformer import CloFormer\n'
        "default_scope = 'mmpretrain'\n"
        "backbone = dict(type=CloFormer, arch='xxs', out_indices=(3,))\n"
        'head = dict(type=LinearClsHead, num_classes=2, in_channels=256)\n'
        'neck = dict(type=GlobalAveragePooling)\n'
        'model = dict(type=ImageClassifier, backbone=backbone, neck=neck, head=head)\n'
    )
    assert isinstance(build_model(read_config(path)).backbone, CloFormer)


def swap(config, line, folder):
    """Write the three lines to a file and build the model they make."""
    path = folder / 'swapped.py'
    imports = "custom_imports = dict(imports=['mmcloformer'], allow_failed_imports=False)"
    assert imports in DOC
    path.write_text(f'_base_ = {config!r}\n{imports}\n{LINES[line]}')
    cfg = Config.fromfile(path)
    if line in OPTIONS:
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=DictAction)
        args = parser.parse_args(['--cfg-options', *shlex.split(OPTIONS[line])])
        cfg.merge_from_dict(args.cfg_options)
    torch.manual_seed(0)
    model = build_model(cfg)
    assert isinstance(model.backbone, CloFormer)
    model.init_weights()  # Some hosts' parameters are unset memory until the Runner calls it.
    # These would pad the small images to the hosts' 512 and 1024.
    if cfg.default_scope == 'mmseg':
        model.data_preprocessor.size = image_size(cfg)
    model.data_preprocessor.batch_augments = None
    return cfg, revert_sync_batchnorm(model)


def batch(cfg, number):
    """Images and their ground truth, of the kind that the host's loader makes."""
    size = image_size(cfg)
    images = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for _ in range(number)]
    masks = "'with_mask': True" in str(cfg.train_dataloader.dataset.to_dict())
    samples = [globals()[f'{cfg.default_scope}_sample'](size, masks) for _ in images]
    return dict(inputs=images, data_samples=samples)


def image_size(cfg):
    if 'dn_cfg' in cfg.model:
        return 224, 256  # DINO's 900 queries are positions of the map.
    return dict(mmdet=(128, 160), mmseg=(64, 96), mmpretrain=(64, 64))[cfg.default_scope]


def mmdet_sample(size, masks):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    sample = DetDataSample(
        metainfo=dict(img_id=0, img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
    )
    boxes = torch.tensor([[10.0, 10.0, 60.0, 70.0], [40.0, 30.0, 120.0, 120.0]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 7]))
    if masks:
        pixels = torch.zeros(len(boxes), *size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(pixels, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        sample.gt_instances.masks = BitmapMasks(pixels.numpy(), *size)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    return sample


def mmseg_sample(size, masks):
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
    sample.gt_sem_seg = PixelData(data=torch.arange(size[0] * size[1]).view(1, *size) // 999)
    return sample


def mmpretrain_sample(size, masks):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(1)


def train_a_step(cfg, model):
    for name in ('iter', 'epoch'):  # As the Runner does; some hosts' losses ask for them.
        MessageHub.get_current_instance().update_info(name, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    data = model.train().data_preprocessor(batch(cfg, 2), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.backbone.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.backbone.stem.conv1[0].weight.grad.abs().sum() > 0
    optimizer.step()


def predict(cfg, model):
    with torch.no_grad():
        (prediction,) = model.eval().test_step(batch(cfg, 1))
    return prediction


def marks(config):
    return [] if any(name in config for name in QUICK) else pytest.mark.nightly


@pytest.mark.parametrize(
    ('config', 'line'),
    [
        pytest.param(
            *row, id=row[0], marks=[pytest.mark.slow] * (not any(n in row[0] for n in QUICK))
        )
        for row in WORKING
    ],
)
def test_it_trains_and_predicts(config, line, tmp_path):
    cfg, model = swap(config, line, tmp_path)
    train_a_step(cfg, model)
    prediction = predict(cfg, model)
    if cfg.default_scope == 'mmdet':
        found = prediction.pred_instances
        assert len(found.scores) == len(found.labels) == len(found.bboxes)
    elif cfg.default_scope == 'mmseg':
        assert prediction.pred_sem_seg.shape == image_size(cfg)
    else:
        assert prediction.pred_score.shape == (1000,)
        assert prediction.pred_score.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(('config', 'line', 'op'), MISSING, ids=[row[0] for row in MISSING])
def test_it_names_the_missing_op(config, line, op, tmp_path):
    cfg, model = swap(config, line, tmp_path)
    with pytest.raises(MissingOpError, match=rf"'{op}.*' needs mmcv's compiled ops"):  # noqa: PT012
        train_a_step(cfg, model)
        predict(cfg, model)
