import pytest
import torch

from mmcloformer import CloFormer
from mmcloformer.checkpoint.shipped import FOLDER, publish
from mmcloformer.errors import CheckpointError


def test_weights_are_published_under_a_free_plain_name_only(tmp_path):
    folder, checkpoint = tmp_path / 'weights', tmp_path / 'trained.pth'
    folder.mkdir()
    torch.save({'backbone.weight': torch.ones(2)}, checkpoint)
    for name in ('../x', 'a/b', '/x', 'a b', ''):
        with pytest.raises(CheckpointError, match='is no name for weights; choose one of letters'):
            publish(checkpoint, name, folder)
    path = publish(checkpoint, 'xs-1.0_b', folder)
    before = path.read_bytes()
    torch.save({'backbone.weight': torch.zeros(2)}, checkpoint)
    with pytest.raises(CheckpointError, match='exists; remove it or choose another name'):
        publish(checkpoint, 'xs-1.0_b', folder)
    assert path.read_bytes() == before


def test_an_unknown_name_lists_what_there_is():
    shipped = sorted(path.stem for path in FOLDER.glob('*.safetensors'))
    backbone = CloFormer('xxs', init_cfg=dict(type='Pretrained', checkpoint='mmcloformer://none'))
    with pytest.raises(CheckpointError, match=', '.join(shipped) or 'it has none'):
        backbone.init_weights()


def test_what_half_precision_cannot_hold_is_not_published(tmp_path):
    checkpoint = tmp_path / 'large.pth'
    torch.save({'backbone.weight': torch.full((2,), 1e6)}, checkpoint)
    with pytest.raises(CheckpointError, match='not finite in half precision'):
        publish(checkpoint, 'large', tmp_path)
    torch.save({'weight': torch.ones(2)}, checkpoint)
    with pytest.raises(CheckpointError, match='no backbone'):
        publish(checkpoint, 'large', tmp_path)
    assert not list(tmp_path.glob('*.safetensors'))
