"""Layer-wise learning rates in every host."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from .errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Lower learning rates towards the image, on top of mmengine's own `paramwise_cfg`.

    The rate of a parameter is what mmengine gives it, times `layer_decay_rate` for each layer
    between it and the head. mmpretrain's constructor does that for classifiers only, since it
    asks the model for the layers; this one asks its backbone.

    Raises:
        UserError: If `paramwise_cfg` lacks `layer_decay_rate`, or the backbone does not tell its
            layers (`get_layer_depth`).
    """

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
        rate = self.paramwise_cfg.get('layer_decay_rate')
        backbone: Any = getattr(module, 'backbone', None)
        if rate is None or not hasattr(backbone, 'get_layer_depth'):
            raise UserError(
                f'{type(self).__name__} needs paramwise_cfg.layer_decay_rate and a backbone with '
                f'get_layer_depth; got {rate} and {type(backbone).__name__}'
            )
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            name = names[id(group['params'][0])]
            layer, layers = backbone.get_layer_depth(name, 'backbone.')
            group['lr'] = group.get('lr', self.base_lr) * rate ** (layers - 1 - layer)
