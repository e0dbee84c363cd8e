"""Focal loss on logits and class indices (arXiv 1708.02002), in torch.

For a logit x let s = x for the target class and s = -x for any other class. The loss is
`-a * sigmoid(-s) ** gamma * log(sigmoid(s))`, where a is alpha for the target class and 1 - alpha
for any other. No term overflows, however large the logits.
"""

import torch
from torch import Tensor
from torch.nn import functional

from .standin import at_least_float32


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the loss of every logit.

    Args:
        input: (N, C) logits.
        target: (N,) class indices; C stands for the background.
        weight: (C,) factors for the rows of each class, or empty for none. mmcv reads past its
            end for the background; the factor is 1 here.
        output: (N, C), overwritten.
        gamma: Exponent that reduces the loss of easy logits.
        alpha: Factor of the target class; any other class has 1 - alpha.
    """
    sign, scale, logits = _terms(input, target, weight, alpha)
    truth = sign * logits
    output.copy_(-scale * torch.sigmoid(-truth) ** gamma * functional.logsigmoid(truth))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the derivative of every loss with respect to its logit.

    The arguments not named here are the forward pass's.

    Args:
        grad_input: (N, C), overwritten.
    """
    sign, scale, logits = _terms(input, target, weight, alpha)
    truth = sign * logits
    miss = torch.sigmoid(-truth)
    slope = gamma * torch.sigmoid(truth) * functional.logsigmoid(truth) - miss
    grad_input.copy_(sign * scale * miss**gamma * slope)


def _terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    (logits,) = at_least_float32(input)
    classes = logits.shape[1]
    own = (target[:, None] == torch.arange(classes, device=target.device)).to(logits.dtype)
    scale = alpha * own + (1 - alpha) * (1 - own)
    if weight.numel():
        rows = target.where((target >= 0) & (target < classes), classes)
        scale = scale * torch.cat([weight, weight.new_ones(1)])[rows, None]
    return 2 * own - 1, scale, logits
