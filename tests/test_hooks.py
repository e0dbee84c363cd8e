from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel

from mmcloformer.errors import CheckpointError
from mmcloformer.hooks import WholeCheckpointHook


def compare(model, state_dict):
    runner = SimpleNamespace(model=model)
    WholeCheckpointHook().after_load_checkpoint(runner, dict(state_dict=state_dict))


def test_its_own_weights_pass_also_from_a_wrapped_model():
    model = torch.nn.Linear(2, 3)
    compare(model, model.state_dict())
    compare(model, {f'module.{key}': value for key, value in model.state_dict().items()})


def test_a_wrapped_model_is_looked_into():
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    torch.nn.Module.__init__(wrapper)
    wrapper.module = torch.nn.Linear(2, 3)
    compare(wrapper, wrapper.module.state_dict())


@pytest.mark.parametrize(
    ('state_dict', 'words'),
    [
        (dict(weight=torch.zeros(3, 2)), ['1 of 2', 'bias: model (3,), checkpoint has none']),
        (
            dict(weight=torch.zeros(3, 2), bias=torch.zeros(4)),
            ['bias: model (3,), checkpoint (4,)'],
        ),
        (
            dict(weight=torch.zeros(3, 2), bias=torch.zeros(3), more=torch.zeros(1)),
            ['more: model has none, checkpoint (1,)'],
        ),
    ],
)
def test_any_difference_is_named(state_dict, words):
    with pytest.raises(CheckpointError) as error:
        compare(torch.nn.Linear(2, 3), state_dict)
    for word in words:
        assert word in str(error.value)
