"""Layer-wise learning rates in every host."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from ..errors import ConfigError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Lower learning rates towards the image, on top of mmengine's own `paramwise_cfg`.

    The rate of a parameter is what mmengine gives it, times `layer_decay_rate` for each layer
    between it and the head. mmpretrain's constructor does that for classifiers only, since it
    asks the model for the layers; this one asks its backbone.

    Raises:
        ConfigError: If `paramwise_cfg.layer_decay_rate` is not in (0, 1], or the model's backbone
            does not tell its layers (`get_layer_depth`).
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ConfigError(
                f'{type(self).__name__} needs paramwise_cfg.layer_decay_rate, a number in (0, 1]; '
                f'got {rate!r}'
            )

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a group for each trainable parameter.

        Args:
            params: The groups, added to.
            module: The model, or with a prefix a part of it.
            prefix: Name of the part.
            is_dcn_module: As mmengine's.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # mmengine comes here for every part of the model, too.
            return
        backbone: Any = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise ConfigError(
                f'{type(self).__name__} needs a model whose backbone has get_layer_depth; that of '
                f'{type(module).__name__} is {type(backbone).__name__}'
            )
        rate = self.paramwise_cfg['layer_decay_rate']
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            name = names[id(group['params'][0])]
            layer, layers = backbone.get_layer_depth(name, 'backbone.')
            group['lr'] = group.get('lr', self.base_lr) * rate ** (layers - 1 - layer)
