"""PSANet's masks through mmcv's own layer, against the loops of mmcv's kernel."""

import pytest
import torch
from mmcv.ops import PSAMask
from torch import Tensor

# Height and width of the masks and of the map. Only the first masks reach from end to end.
CASES = [((7, 9), (4, 5)), ((3, 5), (4, 6)), ((4, 2), (3, 3)), ((1, 1), (2, 3))]


def _by_the_kernel(masks: Tensor, kind: str, mask_size: tuple[int, int]) -> Tensor:
    number, _, height, width = masks.shape
    rows, columns = mask_size
    middle_y, middle_x = (rows - 1) // 2, (columns - 1) // 2
    output = masks.new_zeros(number, height * width, height, width)
    for h in range(height):
        for w in range(width):
            for row in range(max(0, middle_y - h), min(rows, height + middle_y - h)):
                for column in range(max(0, middle_x - w), min(columns, width + middle_x - w)):
                    value = masks[:, row * columns + column, h, w]
                    y, x = row + h - middle_y, column + w - middle_x
                    if kind == 'collect':
                        output[:, y * width + x, h, w] = value
                    else:
                        output[:, h * width + w, y, x] = value
    return output


@pytest.mark.parametrize('kind', ['collect', 'distribute'])
@pytest.mark.parametrize(('mask_size', 'size'), CASES)
def test_masks_and_their_gradient(
    kind: str, mask_size: tuple[int, int], size: tuple[int, int], device: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(2, mask_size[0] * mask_size[1], *size, generator=generator)
    masks = masks.to(device).requires_grad_()
    output = PSAMask(kind, mask_size)(masks)
    expected = _by_the_kernel(masks, kind, mask_size)
    assert torch.equal(output, expected)
    # Not contiguous, as the gradient of a transposed product is.
    grad = torch.randn(*reversed(output.shape), generator=generator).to(device).permute(3, 2, 1, 0)
    found, wanted = (torch.autograd.grad(each, masks, grad)[0] for each in (output, expected))
    assert torch.equal(found, wanted)
    assert found.any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    masks = torch.randn(1, 15, 2, 3).to(dtype)
    output = PSAMask('collect', (3, 5))(masks)
    assert output.dtype == dtype
    assert torch.equal(output, _by_the_kernel(masks, 'collect', (3, 5)))
