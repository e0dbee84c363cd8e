"""Classification."""

from torch import Tensor

from .graph import Graph


class ClassifierGraph(Graph):
    """Probabilities `(N, classes)` of a mmpretrain classifier."""

    task = 'classification'
    outputs = ('probabilities',)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.cast(images), mode='tensor')
        return logits.float().softmax(dim=1)
