"""RoIAlign through mmcv's own function."""

import pytest
import torch
from mmcv.ops import roi_align
from torch import Tensor

from mmcloformer.compat.mmcv_ops import MissingOpError

Arrays = dict[str, Tensor]


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_computes_what_compiled_mmcv_computes(
    compiled: Arrays, aligned: bool, sampling_ratio: int, device: str
) -> None:
    name = f'roi_al{int(aligned)}_sr{sampling_ratio}'
    feat = compiled['feat'].to(device, copy=True).requires_grad_()
    rois = compiled['rois'].to(device)
    out = roi_align(feat, rois, (7, 5), 0.25, sampling_ratio, 'avg', aligned)
    out.backward(compiled[f'{name}_gout'].to(device))
    torch.testing.assert_close(out.cpu(), compiled[f'{name}_out'], rtol=1e-5, atol=1e-5)
    assert feat.grad is not None
    torch.testing.assert_close(feat.grad.cpu(), compiled[f'{name}_gin'], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision(compiled: Arrays, dtype: torch.dtype, device: str) -> None:
    feat = compiled['feat'].to(device, dtype).requires_grad_()
    wide = feat.detach().float().requires_grad_()
    rois = compiled['rois'].to(device, dtype)
    arguments = (5, 0.25, 2, 'avg', True)
    out, expected = roi_align(feat, rois, *arguments), roi_align(wide, rois.float(), *arguments)
    out.sum().backward()
    expected.sum().backward()
    assert out.dtype == dtype
    assert feat.grad is not None
    torch.testing.assert_close(out, expected.to(dtype))
    torch.testing.assert_close(feat.grad.float(), wide.grad, rtol=2e-2, atol=2e-2)


def test_no_rois(device: str) -> None:
    feat = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    out = roi_align(feat, torch.zeros(0, 5, device=device), 7, 0.25, 0, 'avg', True)
    assert out.shape == (0, 3, 7, 7)
    out.sum().backward()
    assert feat.grad is not None
    assert not feat.grad.any()


def test_maxima_are_refused_by_name() -> None:
    with pytest.raises(MissingOpError, match="roi_align with pool_mode='max'"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, 'max', True)
