"""The stand-in as a module, and its error for ops that it does not have."""

import copy
import io
import pickle
import sys

import mmcv.ops
import pytest
import torch

from mmcloformer.compat.mmcv_ops import MissingOpError
from mmcloformer.errors import UserError


def test_missing_op_is_named_and_the_remedy_given() -> None:
    with pytest.raises(MissingOpError) as caught:
        mmcv.ops.nms_match(torch.zeros(1, 5), 0.5)
    message = str(caught.value)
    assert "'nms_match'" in message
    assert 'pip install --no-build-isolation' in message


@pytest.mark.parametrize('base', [NotImplementedError, UserError])
def test_missing_op_is_an_error_callers_know(base: type[Exception]) -> None:
    with pytest.raises(base):
        mmcv.ops.nms_match(torch.zeros(1, 5), 0.5)


def test_missing_op_survives_a_process_boundary() -> None:
    with pytest.raises(MissingOpError) as caught:
        sys.modules['mmcv._ext'].carafe_forward()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize('name', ['__file__', '__path__', '__wrapped__', '_repr_html_'])
def test_only_ops_are_made_up(name: str) -> None:
    assert not hasattr(sys.modules['mmcv._ext'], name)


def _layers() -> list[torch.nn.Module]:
    return [
        mmcv.ops.RoIAlign(2),
        mmcv.ops.DeformConv2dPack(2, 3, 3),
        mmcv.ops.ModulatedDeformConv2dPack(2, 3, 3),
        mmcv.ops.SigmoidFocalLoss(2.0, 0.25),
        mmcv.ops.MultiScaleDeformableAttention(8, 2),
    ]


@pytest.mark.parametrize('layer', _layers(), ids=lambda layer: type(layer).__name__)
def test_layers_can_be_copied_and_stored(layer: torch.nn.Module) -> None:
    assert repr(copy.deepcopy(layer)) == repr(layer)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert repr(torch.load(file, weights_only=False)) == repr(layer)
