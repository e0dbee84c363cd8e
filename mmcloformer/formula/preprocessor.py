"""Drawing on the device, where mmpretrain would normalise images that were loaded."""

from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models import ClsDataPreprocessor

from .waves import render


@MODELS.register_module()
class WavePreprocessor(ClsDataPreprocessor):
    """Draws the images of a `WaveDataset`, then does what `ClsDataPreprocessor` does with images.

    Args:
        size: Side of the images in pixels.
        **kwargs: Of `ClsDataPreprocessor`; images are RGB already.
    """

    def __init__(self, size: int = 224, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def forward(self, data: dict[str, Any], training: bool = False) -> Any:
        """Draw and prepare a batch."""
        images = render(self.cast_data(data['inputs']), self.size)
        return super().forward({**data, 'inputs': images}, training)
