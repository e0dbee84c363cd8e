"""Base class of the exported graphs, and the graphs of the backbone and of classifiers."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..models import CloFormer
from ..models.layers import CloAttention, PooledAttention


class ExportError(UserError):
    """A model or a config cannot be exported, or the file disagrees with PyTorch."""


class Graph(nn.Module):
    """Wraps a model so that it maps normalised images `(N, C, H, W)` to final results.

    Images and results are float32 (labels are int64), whatever the precision of the weights.
    The `predict` methods of mmdet, mmseg and mmpretrain build Python objects and loop over
    values of tensors, which `torch.export` cannot trace. The graphs call those parts of the
    model that it can trace and reimplement the rest.

    Args:
        model: The model, in evaluation mode.

    Attributes:
        task: Name of the task.
        in_channels: Number of channels of the images.
        outputs: Names of the results, in order.
        batched: Whether N may be greater than 1.
    """

    task: str
    outputs: tuple[str, ...]
    batched: ClassVar[bool] = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        backbones = (each for each in model.modules() if isinstance(each, CloFormer))
        self.in_channels = next((each.in_channels for each in backbones), 3)

    def cast(self, images: Tensor) -> Tensor:
        """Convert images to the data type of the weights."""
        return images.to(next(self.model.parameters()).dtype)


class BackboneGraph(Graph):
    """Returns the feature maps of a CloFormer's `out_indices`."""

    task = 'feature maps'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.outputs = tuple(f'stage{i}' for i in self.model.out_indices)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(out.float() for out in self.model(self.cast(images)))


class ClassifierGraph(Graph):
    """Returns the probabilities `(N, classes)` of a mmpretrain classifier.

    Those of a multi-label head are independent of each other; others add up to 1.

    Raises:
        ExportError: If the head predicts something else.
    """

    task = 'classification'
    outputs = ('probabilities',)

    def __init__(self, model: nn.Module) -> None:
        from mmpretrain.models.heads import ClsHead, MultiLabelClsHead

        super().__init__(model)
        head = self.model.head
        predicts = getattr(type(head), '_get_predictions', None)
        self.multi_label: dict[str, Any] | None = None
        if predicts is MultiLabelClsHead._get_predictions:
            self.multi_label = dict(topk=head.topk) if head.thr is None else dict(thr=head.thr)
        elif predicts is not ClsHead._get_predictions:
            raise ExportError(
                f'model.head is {type(head).__name__}, which cannot be exported; supported are '
                'heads that predict as ClsHead or MultiLabelClsHead does'
            )

    def forward(self, images: Tensor) -> Tensor:
        padded = pad(images, self.model.data_preprocessor)
        logits: Tensor = self.model(self.cast(padded), mode='tensor').float()
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)


def pad(images: Tensor, preprocessor: Any) -> Tensor:
    """Pad images on the right and at the bottom, as their preprocessor does."""
    height, width = images.shape[2:]
    divisor = getattr(preprocessor, 'pad_size_divisor', 1)
    if divisor == 1:
        return images
    padding = (0, -width % divisor, 0, -height % divisor)
    return F.pad(images, padding, value=preprocessor.pad_value)


class FlatAttention(nn.Module):
    """`PooledAttention` without tensors of five dimensions, which ncnn does not support."""

    def __init__(self, attention: PooledAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.pool, self.q, self.kv = attention.pool, attention.q, attention.kv

    def forward(self, x: Tensor) -> Tensor:
        q: Tensor = self.q(x)
        k, v = map(self._split_heads, self.kv(self.pool(x)).chunk(2, dim=1))
        out = F.scaled_dot_product_attention(self._split_heads(q), k, v)
        return out.transpose(2, 3).reshape(q.shape)

    def _split_heads(self, x: Tensor) -> Tensor:
        """Reshape `(N, heads * d, H, W)` to `(N, heads, H * W, d)`."""
        n, c, h, w = x.shape
        return x.reshape(n, self.num_heads, c // self.num_heads, h * w).transpose(2, 3)


def flatten_attention(model: nn.Module) -> None:
    """Replace every `PooledAttention` in a model by a `FlatAttention`, in place."""
    for module in model.modules():
        if isinstance(module, CloAttention) and module.pooled is not None:
            module.pooled = FlatAttention(module.pooled)  # type: ignore[assignment]
