"""Layer-wise learning rate decay in every host."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from ..errors import ConfigError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Decay the learning rate from the head towards the stem, on top of `paramwise_cfg`.

    The learning rate of a parameter is the one that mmengine sets, multiplied by
    `layer_decay_rate` once per layer between the parameter and the head. mmpretrain's
    constructor works for classifiers only, since it calls `get_layer_depth` of the model; this
    one calls that of the backbone.

    Raises:
        ConfigError: If `paramwise_cfg.layer_decay_rate` is not in (0, 1], or the model's backbone
            has no `get_layer_depth`.
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
        """Add one parameter group per trainable parameter.

        Args:
            params: List that the groups are added to.
            module: The model, or a part of it if `prefix` is given.
            prefix: Name of the part.
            is_dcn_module: As in mmengine.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # mmengine calls this for every part of the model, too.
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
