"""The CloFormer backbone."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError
from .archs import NUM_STAGES, check_rate, resolve_arch
from .deploy import DeployMixin
from .layers import Block, CloAttention, Stem
from .loading import check_state, load_pretrained
from .norm import LayerNorm2d

# Each window times its stage's stride is 32 pixels: all stages pool to the same map.
POOL_WINDOWS = (8, 4, 2, 1)
STRIDES = (4, 8, 16, 32)


@MODELS.register_module()
class CloFormer(DeployMixin, BaseModule):
    """CloFormer for detection, segmentation and classification.

    Each output is taken after the attention of its stage's last block and before that block's
    strided ConvFFN (for the last stage: after its last block), and has a norm of its own. The
    last one's is the classifier's norm, so it comes with the pre-trained weights; the others
    are new downstream. Source: arXiv 2303.17803; the pyramid follows the same authors' later
    code, as the paper's was never released.

    Parameters that no chosen output depends on are frozen, so that distributed training finds
    no unused ones and checkpoints keep their keys whatever `out_indices` is.

    Args:
        arch: `'xxs'`, `'xs'`, `'s'`, the ablations `'xxs-global'` and `'xxs-local'`, or a dict
            with the fields of `mmcloformer.models.archs.Arch`.
        in_channels: Channels of the image.
        out_indices: Stages to return, increasing, of 0 to 3.
        drop_path_rate: Rate of the last block; None takes the arch's.
        norm_cfg: Norm of the stem and of the strided shortcuts.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: Keep BatchNorm layers on their running statistics in training.
        with_cp: Recompute the blocks' residual branches in the backward pass: less memory,
            more time, the same numbers.
        init_cfg: `dict(type='Pretrained', checkpoint=...)` loads a classifier, a detector's
            backbone or a bare backbone, and fails unless every weight is matched.

    Attributes:
        out_channels: Channels of each output, readable before any forward pass.
        out_strides: Pixels of the image a position of each output.
        deployed: Whether it is in its form for inference.

    Raises:
        ConfigError: If an argument is out of its range; the message names the allowed values.
    """

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
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.deployed = False
        self.out_channels = tuple(settings.embed_dims[i] for i in self.out_indices)
        self.out_strides = tuple(STRIDES[i] for i in self.out_indices)

        norm_cfg = _check_norm_cfg(dict(type='BN') if norm_cfg is None else norm_cfg)
        rates = iter(torch.linspace(0, rate, sum(settings.depths)).tolist())
        self.stem = Stem(in_channels, settings.embed_dims[0], norm_cfg)
        self.stages = nn.ModuleList()
        for stage, (dims, depth) in enumerate(zip(settings.embed_dims, settings.depths)):
            blocks = nn.ModuleList()
            for index in range(depth):
                downsample = index == depth - 1 and stage < NUM_STAGES - 1
                attn = CloAttention(
                    dims,
                    settings.num_heads[stage],
                    settings.group_splits[stage],
                    settings.kernel_sizes[stage],
                    POOL_WINDOWS[stage],
                )
                out_dims = settings.embed_dims[stage + 1] if downsample else dims
                stride = 2 if downsample else 1
                blocks.append(Block(attn, dims, out_dims, stride, next(rates), norm_cfg, with_cp))
            self.stages.append(blocks)
        for i in self.out_indices:
            self.add_module(f'norm{i}', LayerNorm2d(settings.embed_dims[i]))

        self.register_load_state_dict_pre_hook(check_state)
        self._freeze()

    def init_weights(self) -> None:
        """Keep torch's default initialisation, as the released code does for convolutions, or
        load what `init_cfg` names.

        Raises:
            CheckpointError: If the checkpoint cannot be read or does not match.
        """
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg or {}]
        if len(cfgs) != 1 or cfgs[0].get('type') != 'Pretrained':
            super().init_weights()
            return
        load_pretrained(self, cfgs[0]['checkpoint'], cfgs[0].get('prefix'))
        self._is_init = True

    def train(self, mode: bool = True) -> 'CloFormer':
        """Set the mode; frozen stages, and BatchNorm under `norm_eval`, stay in evaluation."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the pyramid.

        Args:
            x: Images `(N, in_channels, H, W)` of any size from 1x1.

        Returns:
            One map `(N, out_channels[i], ceil(H / out_strides[i]), ceil(W / out_strides[i]))`
            for each of `out_indices`.
        """
        outs = []
        # oneDNN's convolutions and the attention are fastest in channels_last; on a GPU that
        # depends on the precision, so there the caller chooses.
        # The stride tells a map of one channel in channels_last, which is contiguous as well.
        convert = x.device.type == 'cpu' and x.is_contiguous() and x.stride(1) != 1
        x = self.stem(x.contiguous(memory_format=torch.channels_last) if convert else x)
        for stage in range(self.out_indices[-1] + 1):
            *blocks, last = self._blocks(stage)
            for block in blocks:
                x = block(x)
            x = out = last.attend(x)
            if stage < self.out_indices[-1] or stage == NUM_STAGES - 1:
                x = last.feed_forward(x)
            if stage == NUM_STAGES - 1:
                out = x
            if stage in self.out_indices:
                outs.append(self.get_submodule(f'norm{stage}')(out))
        return tuple(out.contiguous() if convert else out for out in outs)

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


def _check_norm_cfg(norm_cfg: Mapping[str, Any]) -> dict[str, Any]:
    kind = norm_cfg.get('type') if isinstance(norm_cfg, Mapping) else None
    if not kind or (isinstance(kind, str) and MODELS.get(kind) is None):
        raise ConfigError(
            f"norm_cfg={norm_cfg!r} must be a dict whose type is a norm of mmcv's, for example "
            f"dict(type='BN'), dict(type='SyncBN') or dict(type='GN', num_groups=8)"
        )
    return dict(norm_cfg)
