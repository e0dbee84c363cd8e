"""Pre-training as the config does it, small: on a CPU, 32 pixels a side, four classes."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch.utils.data import default_collate

from mmcloformer import CloFormer
from mmcloformer.checkpoint import read_state_dict
from mmcloformer.checkpoint.shipped import publish
from tests.conftest import ROOT

CONFIG = ROOT / 'configs/cloformer_xxs_formula.py'
SMALL = [
    'data_preprocessor.size=32',
    'data_preprocessor.num_classes=4',
    'model.head.num_classes=4',
    'train_dataloader.batch_size=8',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.dataset.num_classes=4',
    'train_dataloader.dataset.instances=4',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'val_dataloader.dataset.num_classes=4',
    'val_evaluator.topk=(1,)',
    'train_cfg.max_epochs=3',
]


@pytest.fixture(scope='module')
def cfg():
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(CONFIG)
    __import__('mmcloformer.formula')
    return cfg


def test_validation_has_other_instances(cfg):
    train, val = (DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in ('train', 'val'))
    assert len(train) == 256_000
    assert len(val) == 2_000
    assert train[1]['data_samples'].gt_label == val[1]['data_samples'].gt_label == 1
    assert (train[len(train) - 999]['inputs'] != val[1]['inputs']).any()


@pytest.mark.parametrize('wrong', [dict(num_classes=0), dict(instances=0), dict(first_instance=-1)])
def test_a_wrong_count_is_refused(cfg, wrong):
    with pytest.raises(ValueError, match='from 1'):
        DATASETS.build(dict(type='WaveDataset', num_classes=4, instances=2) | wrong)


def test_images_are_drawn_and_normalised(cfg):
    dataset = DATASETS.build(dict(type='WaveDataset', num_classes=4, instances=2))
    preprocessor = MODELS.build(cfg.data_preprocessor)
    batch = dict(
        inputs=default_collate([dataset[i]['inputs'] for i in range(8)]),
        data_samples=[dataset[i]['data_samples'] for i in range(8)],
    )
    images = preprocessor(batch, training=True)['inputs']
    assert images.shape == (8, 3, 224, 224)
    assert images.abs().max() < 3  # Not raw pixels.
    assert [int(sample.gt_label) for sample in batch['data_samples']] == [0, 1, 2, 3] * 2


@pytest.fixture(scope='module')
def trained(run_tool, tmp_path_factory):
    """Three epochs in one go, and a folder beside it."""
    folder = tmp_path_factory.mktemp('formula')
    run_tool('train.py', CONFIG, '--work-dir', folder / 'whole', '--cfg-options', *SMALL)
    return folder


def weights(work_dir):
    return read_state_dict(work_dir / 'epoch_3.pth')


@pytest.mark.slow
def test_pieces_of_a_run_are_the_run(trained, run_tool):
    """Each process has time for one epoch: the second would end after its limit."""
    pieces = trained / 'pieces'
    limit = 'custom_hooks.0.minutes=0.0001'
    for epoch in (1, 2, 3):
        output = run_tool(
            'train.py', CONFIG, '--work-dir', pieces, '--resume', '--cfg-options', *SMALL, limit
        )
        assert (f'stopping after epoch {epoch} of 3' in output) == (epoch < 3)
        assert (pieces / 'last_checkpoint').read_text().endswith(f'epoch_{epoch}.pth')
    whole = weights(trained / 'whole')
    for key, value in weights(pieces).items():
        assert torch.equal(value, whole[key]), key


@pytest.mark.slow
def test_its_weights_load_by_name(trained, monkeypatch, tmp_path):
    checkpoint = trained / 'whole/epoch_3.pth'
    path = publish(checkpoint, 'trial', tmp_path)
    assert path.stat().st_size < 9e6
    monkeypatch.setattr('mmcloformer.checkpoint.shipped.FOLDER', tmp_path)
    init = dict(type='Pretrained', checkpoint='mmcloformer://trial')
    backbone = CloFormer('xxs', init_cfg=init)
    backbone.init_weights()
    for key, value in weights(trained / 'whole').items():
        if key.startswith('backbone.stages'):
            own = backbone.state_dict()[key.removeprefix('backbone.')]
            torch.testing.assert_close(own, value, rtol=1e-3, atol=1e-6)
