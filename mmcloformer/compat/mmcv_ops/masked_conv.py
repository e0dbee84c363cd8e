"""The two steps of a convolution at selected positions, by indexing; mmcv multiplies in between.

mmcv's own kernels run on GPUs only.
"""

import torch
from torch import Tensor
from torch.nn import functional


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Copy what the kernel covers at each position.

    Args:
        im: (1, C, H, W).
        mask_h_idx: (P,), rows of the positions in the output.
        mask_w_idx: (P,), columns.
        col: (C * kernel_h * kernel_w, P), overwritten; 0 outside the map.
        kernel_h: Rows of the kernel.
        kernel_w: Columns of the kernel.
        pad_h: Rows of padding.
        pad_w: Columns of padding.
    """
    after_h, after_w = max(kernel_h - 1 - pad_h, 0), max(kernel_w - 1 - pad_w, 0)
    padded = functional.pad(im[0], (pad_w, after_w, pad_h, after_h))
    rows = torch.arange(kernel_h, device=im.device)[:, None, None] + mask_h_idx
    columns = torch.arange(kernel_w, device=im.device)[:, None] + mask_w_idx
    col.copy_(padded[:, rows, columns].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Put the results at their positions.

    Args:
        col: (C, P).
        mask_h_idx: (P,), rows of the positions.
        mask_w_idx: (P,), columns.
        im: (1, C, H, W), overwritten at the positions.
        height: Not used; it is H.
        width: Not used; it is W.
        channels: Not used; it is C.
    """
    im[0][:, mask_h_idx, mask_w_idx] = col.to(im.dtype)
