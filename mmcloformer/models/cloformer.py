"""The CloFormer backbone: from an image to a pyramid of four maps.

The `Stem` turns an image `(N, 3, H, W)` into a map `(N, C0, H/4, W/4)`. Four stages follow, whose
maps have `C0` to `C3` channels and strides 4, 8, 16 and 32; odd sizes are rounded up at each
stride. A stage is a sequence of `depths[i]` blocks ("Clo block" in the paper's figures). A `Block`
computes `x = x + CloAttention(norm(x))`, then `x = x + ConvFFN(norm(x))`, where `CloAttention`
concatenates the outputs of `AttnConv` and `PooledAttention`. There are no separate downsampling
layers: the last block of stages 0 to 2 is a `DownsampleBlock`, whose ConvFFN and shortcut have
stride 2 and change the channels to those of the next stage. Level i of the pyramid, for stages 0 to
2, is the map between the attention and the ConvFFN of that block, which still has the stride and
channels of stage i; level 3 is the output of the last block. Each level has a norm of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError
from .archs import NUM_STAGES, check_rate, resolve_arch
from .deploy import DeployError, DeployMixin
from .inference import CpuConvFFN
from .layers import Block, CloAttention, DownsampleBlock, Stem
from .norm import GroupNorm1
from .state_dict import check_before_load, load_pretrained

# Pooling window times stride is 32 pixels in every stage, so all keys and values have one size.
POOL_WINDOWS = (8, 4, 2, 1)
STRIDES = (4, 8, 16, 32)


@MODELS.register_module()
class CloFormer(DeployMixin, BaseModule):
    """CloFormer for detection, segmentation and classification.

    The output of stages 0 to 2 is taken after the attention of the last block and before its
    strided ConvFFN, the output of stage 3 after its last block. Each output has its own norm. The
    norm of the last output is the classifier's and is loaded from pre-trained weights; the other
    output norms are new downstream. Source: arXiv 2303.17803. The pyramid follows the same
    authors' later code, since that of the paper was never released.

    Parameters that no output of `out_indices` depends on are frozen, so that distributed training
    finds no unused parameters. They stay in the state dict.

    Args:
        arch: `'xxs'`, `'xs'`, `'s'`, the ablations `'xxs-global'` and `'xxs-local'`, or a dict
            with the fields of `mmcloformer.models.archs.Arch`.
        in_channels: Channels of the image.
        out_indices: Stages to return, out of 0 to 3, in increasing order.
        drop_path_rate: Drop path rate of the last block; rates rise linearly from 0. None uses
            the arch's rate.
        norm_cfg: Norm of the stem and of the strided shortcuts; BatchNorm by default.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: Keep BatchNorm layers in evaluation mode during training.
        with_cp: Recompute the residual branches in the backward pass: less memory, more time,
            the same numbers.
        init_cfg: `dict(type='Pretrained', checkpoint=...)` loads a classifier, a detector's
            backbone or a bare backbone, and fails unless every weight matches. Other initialisers,
            by themselves or in a list, are those of mmengine and run before it.

    Attributes:
        out_channels: Channels of each output.
        out_strides: Stride of each output in pixels of the image.
        weight_names: Keys of the state dict as built.

    Raises:
        ConfigError: If an argument is out of range; the message names the allowed values.
    """

    init_cfg: Any

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'xs',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        settings = resolve_arch(arch)
        self.out_indices = _check_out_indices(out_indices)
        if not isinstance(in_channels, int) or in_channels < 1:
            raise ConfigError(f'in_channels={in_channels!r} is not a positive integer')
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= NUM_STAGES:
            raise ConfigError(
                f'frozen_stages={frozen_stages!r} is not an integer in -1..{NUM_STAGES}'
            )
        rate = settings.drop_path_rate
        if drop_path_rate is not None:
            rate = check_rate('drop_path_rate', drop_path_rate)
        self.in_channels = in_channels
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.deployed = False
        self.out_channels = tuple(settings.embed_dims[i] for i in self.out_indices)
        self.out_strides = tuple(STRIDES[i] for i in self.out_indices)

        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        first, *others = settings.embed_dims[:-1]
        norm_cfg = _check_norm_cfg(norm_cfg, (first // 2, first, *others))
        rates = iter(np.linspace(0, rate, sum(settings.depths)).tolist())
        self.stem = Stem(in_channels, settings.embed_dims[0], norm_cfg)
        self.stages = nn.ModuleList()
        for stage, (dims, depth) in enumerate(zip(settings.embed_dims, settings.depths)):
            blocks = nn.ModuleList()
            for index in range(depth):
                attn = CloAttention(
                    dims,
                    settings.num_heads[stage],
                    settings.group_splits[stage],
                    settings.kernel_sizes[stage],
                    POOL_WINDOWS[stage],
                )
                if index == depth - 1 and stage < NUM_STAGES - 1:
                    out_dims = settings.embed_dims[stage + 1]
                    ffn = CpuConvFFN(dims, out_dims, stride=2)
                    blocks.append(
                        DownsampleBlock(attn, ffn, dims, out_dims, next(rates), norm_cfg, with_cp)
                    )
                else:
                    ffn = CpuConvFFN(dims, dims, stride=1)
                    blocks.append(Block(attn, ffn, dims, next(rates), with_cp))
            self.stages.append(blocks)
        for i in self.out_indices:
            self.add_module(f'norm{i}', GroupNorm1(settings.embed_dims[i]))

        self.weight_names = frozenset(self.state_dict())
        self.register_load_state_dict_pre_hook(check_before_load)  # type: ignore[no-untyped-call]
        self._freeze()

    def init_weights(self) -> None:
        """Load the checkpoint of `init_cfg`, or keep torch's default initialisation, as the
        released code does for convolutions.

        Raises:
            CheckpointError: If the checkpoint cannot be read or does not match.
        """
        given = self.init_cfg or []
        cfgs = [given] if isinstance(given, Mapping) else given
        pretrained = [cfg for cfg in cfgs if _is_pretrained(cfg['type'])]
        others = [cfg for cfg in cfgs if cfg not in pretrained]
        if others or not pretrained:
            self.init_cfg = others
            super().init_weights()
            self.init_cfg = given
        for cfg in pretrained:  # Last, as in the host.
            load_pretrained(self, cfg['checkpoint'], cfg.get('prefix'))
        self._is_init = True

    def train(self, mode: bool = True) -> 'CloFormer':
        """Set training or evaluation mode.

        Frozen stages, and with `norm_eval` all BatchNorm layers, stay in evaluation mode.

        Raises:
            DeployError: If the backbone has the deploy form and `mode` is True.
        """
        if mode and self.deployed:
            raise DeployError(
                'this CloFormer has the deploy form, which cannot be trained: its norms are folded '
                'into the convolutions. Build the model anew and load the checkpoint that it was '
                'made from'
            )
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps.

        Args:
            x: Images `(N, in_channels, H, W)` of any size.

        Returns:
            One map `(N, out_channels[i], ceil(H / out_strides[i]), ceil(W / out_strides[i]))` per
            entry of `out_indices`.

        Raises:
            ConfigError: If the input is no such batch, or has another number of channels.
        """
        self._check_images(x)
        # oneDNN's convolutions and the attention are fastest in channels_last. On a GPU the best
        # layout depends on the precision, so the caller chooses. With one channel both layouts
        # are contiguous; stride(1) == 1 identifies channels_last.
        convert = x.device.type == 'cpu' and x.is_contiguous() and x.stride(1) != 1
        if convert:  # Not `contiguous(memory_format=...)`, which vmap does not support.
            x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        x = self.stem(x)
        outs = []
        deepest = self.out_indices[-1]
        for stage in range(deepest + 1):
            *blocks, last = self._blocks(stage)
            for block in blocks:
                x = block(x)
            if stage < NUM_STAGES - 1:
                level, x = last(x, downsample=stage < deepest)
            else:
                level = x = last(x)
            if stage in self.out_indices:
                outs.append(getattr(self, f'norm{stage}')(level))
        return tuple(out.contiguous() if convert else out for out in outs)

    def _check_images(self, x: Tensor) -> None:
        expected = f'a CloFormer takes a floating-point tensor (N, {self.in_channels}, H, W)'
        if not isinstance(x, Tensor):
            raise ConfigError(f'{expected}, not a {type(x).__name__}; torch.stack joins images')
        if x.dim() != 4:
            batch = '; image[None] is a batch of one' if x.dim() == 3 else ''
            raise ConfigError(f'{expected}, not one of shape {tuple(x.shape)}{batch}')
        if not x.is_floating_point():
            raise ConfigError(f'{expected}, not one of {x.dtype}; images.float() converts it')
        if x.shape[1] != self.in_channels:
            raise ConfigError(
                f'images of {x.shape[1]} channels reach a CloFormer with '
                f'in_channels={self.in_channels}: set in_channels={x.shape[1]} in the backbone, or '
                f'load images of {self.in_channels} channels (color_type of LoadImageFromFile, '
                f'mean and std of data_preprocessor)'
            )

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning rates.

        mmpretrain's `LearningRateDecayOptimWrapperConstructor` and ours call this.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: Prefix of the backbone's parameters there.

        Returns:
            The layer of the parameter and the number of layers. Layer 0 is the stem, and each
            block is one layer. The last layer holds what is new downstream: the output norms and
            everything outside the backbone.
        """
        depths = [len(self._blocks(stage)) for stage in range(NUM_STAGES)]
        layers = sum(depths) + 2
        part, *rest = param_name[len(prefix) :].split('.')
        if not param_name.startswith(prefix) or part not in ('stem', 'stages'):
            return layers - 1, layers
        if part == 'stem':
            return 0, layers
        stage, block = int(rest[0]), int(rest[1])
        return 1 + sum(depths[:stage]) + block, layers

    def _blocks(self, stage: int) -> list[Block]:
        return list(cast(Sequence[Block], self.stages[stage]))

    def _frozen_modules(self) -> list[nn.Module]:
        frozen: list[nn.Module] = [self.stem] if self.frozen_stages >= 0 else []
        for stage in range(self.frozen_stages):
            frozen.append(self.stages[stage])
            if stage in self.out_indices:
                frozen.append(self.get_submodule(f'norm{stage}'))
        return frozen

    def _unused_modules(self) -> list[nn.Module]:
        deepest = self.out_indices[-1]
        if deepest == NUM_STAGES - 1:
            return []
        last = self._blocks(deepest)[-1]
        return [last.norm2, last.ffn, last.shortcut, *self.stages[deepest + 1 :]]

    def _freeze(self) -> None:
        for module in self._frozen_modules() + self._unused_modules():
            module.requires_grad_(False)


def _is_pretrained(kind: Any) -> bool:
    kind = WEIGHT_INITIALIZERS.get(kind) if isinstance(kind, str) else kind
    return kind is PretrainedInit


def _check_out_indices(out_indices: Sequence[int]) -> tuple[int, ...]:
    allowed = list(range(NUM_STAGES))
    sequence = isinstance(out_indices, Sequence) and bool(out_indices)
    if sequence and all(isinstance(i, int) and i in allowed for i in out_indices):
        indices = tuple(out_indices)
        if indices == tuple(sorted(set(indices))):
            return indices
    raise ConfigError(
        f'out_indices={out_indices!r} must be a tuple of increasing stage numbers out of {allowed}'
    )


def _check_norm_cfg(norm_cfg: Mapping[str, Any], widths: Sequence[int]) -> dict[str, Any]:
    try:
        copied = dict(norm_cfg)
        for channels in widths:
            build_norm_layer(copied, channels)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f'norm_cfg={norm_cfg!r} does not build norms of {", ".join(map(str, widths))} channels '
            f"({type(error).__name__}: {error}); use, for example, dict(type='BN'), "
            f"dict(type='SyncBN') or dict(type='GN', num_groups=8)"
        ) from error
    return copied
