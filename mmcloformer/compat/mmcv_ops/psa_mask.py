"""The masks of point-wise spatial attention (PSANet, ECCV 2018) by indexing.

Every position of the map has a mask of its own, centred at it. The two kinds, collect and
distribute, turn all masks into one square matrix: the weight between any two positions, and 0 where
the mask of the one does not reach the other.
"""

import torch
from torch import Tensor

_COLLECT = 0


def psamask_forward(
    input: Tensor, output: Tensor, psa_type: int, num_: int, **geometry: int
) -> None:
    """Lay every mask over the map.

    Args:
        input: (N, h_mask * w_mask, H, W), the masks.
        output: (N, H * W, H, W), zeros; overwritten where a mask reaches. Collect: channel t at
            position p is the weight of position t in the mask of p. Distribute: channel p at
            position t is that weight.
        psa_type: 0 (collect) or 1 (distribute).
        num_: Not used; it is N.
        **geometry: mmcv's keywords for the sizes of map and masks, and the masks' centre.
    """
    cell, mask_of, at = _pairs(input.device, **geometry)
    rows, columns = (at, mask_of) if psa_type == _COLLECT else (mask_of, at)
    output.flatten(2)[:, rows, columns] = input.flatten(2)[:, cell, mask_of]


def psamask_backward(
    grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, **geometry: int
) -> None:
    """Compute the gradient of the masks; the arguments not named here are the forward pass's.

    Args:
        grad_output: (N, H * W, H, W).
        grad_input: (N, h_mask * w_mask, H, W), zeros; overwritten where a mask lies on the map.
    """
    cell, mask_of, at = _pairs(grad_output.device, **geometry)
    rows, columns = (at, mask_of) if psa_type == _COLLECT else (mask_of, at)
    grad_input.flatten(2)[:, cell, mask_of] = grad_output.flatten(2)[:, rows, columns]


def _pairs(
    device: torch.device,
    *,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each pair that a mask joins: its cell, the position of the mask, the other one.

    All three are indices into flattened maps.
    """
    y, x = torch.arange(h_feature, device=device), torch.arange(w_feature, device=device)
    row = (y[:, None] - y + half_h_mask)[:, None, :, None]
    column = (x[:, None] - x + half_w_mask)[None, :, None, :]
    inside = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)
    size = (h_feature * w_feature, h_feature * w_feature)
    cell = (row * w_mask + column).reshape(size)
    at, mask_of = inside.reshape(size).nonzero(as_tuple=True)
    return cell[at, mask_of], mask_of, at
