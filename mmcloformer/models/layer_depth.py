"""How deep in the network a parameter is, for layer-wise learning rates."""

from torch import nn


class LayerDepthMixin:
    """Gives a backbone of `stem`, `stages` and output norms the method that mmpretrain's
    `LearningRateDecayOptimWrapperConstructor` and ours ask for."""

    stages: nn.ModuleList

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Find the layer of a parameter.

        Args:
            param_name: Its name in the whole model.
            prefix: What the backbone's parameters start with there.

        Returns:
            The layer, and the number of layers: 0 is the stem, then every block is one; the last
            is all that is new downstream, the norms of the outputs and what is not the backbone.
        """
        depths = [len(stage) for stage in self.stages]  # type: ignore[arg-type]
        layers = sum(depths) + 2
        part, *rest = param_name[len(prefix) :].split('.')
        if not param_name.startswith(prefix) or part not in ('stem', 'stages'):
            return layers - 1, layers
        if part == 'stem':
            return 0, layers
        stage, block = int(rest[0]), int(rest[1])
        return 1 + sum(depths[:stage]) + block, layers
