"""The backbone by itself."""

from torch import Tensor, nn

from .graph import Graph


class BackboneGraph(Graph):
    """The maps of a CloFormer's `out_indices`."""

    task = 'feature maps'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.outputs = tuple(f'stage{i}' for i in self.model.out_indices)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(out.float() for out in self.model(self.cast(images)))
