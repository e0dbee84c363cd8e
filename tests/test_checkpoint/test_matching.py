import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import Sequential
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from mmcloformer import CloFormer
from mmcloformer.errors import CheckpointError


@pytest.fixture
def classifier_file(tmp_path):
    """A checkpoint as mmpretrain's training saves it: a classifier with the backbone."""
    backbone = CloFormer('xxs', out_indices=(3,))
    torch.nn.init.normal_(backbone.stem.proj.weight)
    state_dict = {f'backbone.{key}': value for key, value in backbone.state_dict().items()}
    state_dict['head.fc.weight'] = torch.zeros(1000, 256)
    path = tmp_path / 'classifier.pth'
    torch.save(dict(state_dict=state_dict, meta={}), path)
    return path


def detector_backbone(checkpoint, arch='xxs', **init_cfg):
    return CloFormer(
        arch,
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint), **init_cfg),
    )


@pytest.mark.parametrize('init_cfg', [{}, dict(prefix='backbone.'), dict(prefix='backbone')])
def test_classifier_into_detector(classifier_file, init_cfg):
    backbone = detector_backbone(classifier_file, **init_cfg)
    backbone.init_weights()
    saved = torch.load(classifier_file, weights_only=True)['state_dict']
    for key, value in backbone.state_dict().items():
        if key.startswith(('norm1', 'norm2')):
            assert f'backbone.{key}' not in saved
        else:
            assert torch.equal(value, saved[f'backbone.{key}']), key


def test_it_survives_the_hosts_own_initialisation(classifier_file):
    """`Runner` calls the detector's `init_weights`, which calls that of every child."""
    init_default_scope('mmdet')
    config = dict(
        type='CloFormer',
        arch='xxs',
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=str(classifier_file)),
    )
    neck = dict(type='mmdet.FPN', in_channels=[64, 128, 256], out_channels=8, num_outs=3)
    model = Sequential(MODELS.build(config), MODELS.build(neck))
    model.init_weights()
    model.init_weights()
    saved = torch.load(classifier_file, weights_only=True)['state_dict']
    assert torch.equal(model[0].stem.proj.weight, saved['backbone.stem.proj.weight'])


def test_a_good_load_logs_one_line_with_the_counts(classifier_file):
    lines = []
    logger = MMLogger.get_current_instance()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    try:
        detector_backbone(classifier_file).init_weights()
    finally:
        logger.removeHandler(handler)
    counts = [line for line in lines if 'CloFormer' in line and 'tensors' in line]
    assert len(counts) == 1
    assert 'loaded 349 of 353 tensors, new: norm1, norm2' in counts[0]


def test_bare_backbone_and_detector(tmp_path, classifier_file):
    first = detector_backbone(classifier_file)
    first.init_weights()
    torch.save(first.state_dict(), tmp_path / 'bare.pth')
    detector = {f'backbone.{k}': v for k, v in first.state_dict().items()}
    detector['neck.weight'] = torch.zeros(1)
    torch.save(dict(state_dict=detector), tmp_path / 'detector.pth')
    for name in ('bare.pth', 'detector.pth'):
        second = detector_backbone(tmp_path / name)
        second.init_weights()
        for key, value in first.state_dict().items():
            assert torch.equal(second.state_dict()[key], value)


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (
            lambda sd: sd.pop('backbone.stages.2.3.ffn.fc1.weight'),
            ['missing', 'stages.2.3.ffn.fc1.weight'],
        ),
        (
            lambda sd: sd.update({'backbone.stages.4.x': torch.zeros(1)}),
            ['unexpected', 'stages.4.x'],
        ),
        (
            lambda sd: sd.update({'backbone.stem.proj.bias': torch.zeros(3)}),
            ['of another shape', 'stem.proj.bias (3,) instead of (32,)'],
        ),
    ],
)
def test_a_half_fitting_checkpoint_is_an_error_that_lists(classifier_file, spoil, words):
    checkpoint = torch.load(classifier_file, weights_only=True)
    spoil(checkpoint['state_dict'])
    torch.save(checkpoint, classifier_file)
    backbone = detector_backbone(classifier_file)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        backbone.init_weights()
    for word in [*words, str(classifier_file)]:
        assert word in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


def test_another_arch_and_another_model(tmp_path, classifier_file):
    with pytest.raises(CheckpointError, match='of another shape'):
        detector_backbone(classifier_file, arch='xs').init_weights()
    resnet = {'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)}
    torch.save(dict(state_dict=resnet), tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match='missing'):
        detector_backbone(tmp_path / 'resnet.pth').init_weights()


def test_load_from_is_guarded_too(classifier_file):
    """The host's `load_checkpoint` is not strict and would only warn."""

    class Detector(torch.nn.Module):
        def __init__(self, arch):
            super().__init__()
            self.backbone = CloFormer(arch, out_indices=(1, 2, 3))
            self.bbox_head = torch.nn.Linear(1, 1)

    load_checkpoint(Detector('xxs'), str(classifier_file))
    with pytest.raises(CheckpointError, match='does not fit this CloFormer'):
        load_checkpoint(Detector('xxs-local'), str(classifier_file))


def test_a_file_without_weights(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'empty.pth')
    with pytest.raises(CheckpointError, match='no state dict'):
        detector_backbone(tmp_path / 'empty.pth').init_weights()
