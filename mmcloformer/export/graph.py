"""What every exported graph has in common."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ..errors import UserError


class ExportError(UserError):
    """A model or a config cannot be exported as it stands, or its export computes otherwise."""


class Graph(nn.Module):
    """A host's model from normalised images `(N, 3, H, W)` to final results.

    Images and results are float32 (labels int64), whatever the precision of the weights. A host's
    own `predict` goes through Python objects and loops that hang on the data, which no exporter
    can follow; what can be followed of it is called, not written again.

    Args:
        model: The host's model, in evaluation mode.

    Attributes:
        task: Name of the task.
        outputs: Names of the results, in order.
        batched: Whether N may be other than 1.
    """

    task: ClassVar[str]
    outputs: tuple[str, ...]
    batched: ClassVar[bool] = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def cast(self, images: Tensor) -> Tensor:
        """Bring images to the precision of the weights."""
        return images.to(next(self.model.parameters()).dtype)
