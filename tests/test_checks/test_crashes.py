import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmcloformer.checks.crashes import explain_crashes
from mmcloformer.errors import ConfigError


@pytest.mark.parametrize(
    ('batch', 'words'),
    [
        (1, 'train_dataloader.batch_size is 1. To change it, set train_dataloader.batch_size to 2'),
        (4, r'last batch .* one image .*batch_size is 4.* set train_dataloader.drop_last=True'),
    ],
)
def test_batchnorm_says_what_to_set(batch, words):
    cfg = Config(dict(train_dataloader=dict(batch_size=batch)))
    with pytest.raises(ConfigError, match=words) as error, explain_crashes(cfg):
        nn.BatchNorm2d(3).train()(torch.zeros(1, 3, 1, 1))
    assert 'sync_bn' in str(error.value)
    assert 'norm_cfg' in str(error.value)


@pytest.mark.parametrize('error', [ValueError('of a layer'), KeyError('Expected more than 1')])
def test_others_pass(error):
    with pytest.raises(type(error)) as raised, explain_crashes(Config()):
        raise error
    assert raised.value is error
