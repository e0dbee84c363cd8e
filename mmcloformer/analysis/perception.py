"""Visualises the two branches of each stage: the weights of AttnConv, the map of the pooled
attention, and the frequency spectrum of the output of each branch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models import CloFormer
from ..models.layers import AttnConv, Block, PooledAttention

_Floats = NDArray[np.float64]
_SPECTRUM_BINS = 10
_QUERIES_AT_ONCE = 4096


@dataclass(frozen=True)
class StageView:
    """The attention of a stage's last block, for one image; None where the stage has no such
    branch.

    Attributes:
        weights: Mean magnitude over the channels of AttnConv's context-aware weights (paper,
            section 3.2), of shape (h, w), between 0 and 1.
        attention: Share of the pooled attention that each pooled position gets, mean over heads
            and queries, of shape (h', w'), times the number of positions: 1 is an even share.
        local_spectrum: See `spectrum`, of what the local branches put out.
        global_spectrum: The same of the global branch.
    """

    weights: _Floats | None
    attention: _Floats | None
    local_spectrum: _Floats | None
    global_spectrum: _Floats | None


@torch.no_grad()
def view(backbone: CloFormer, image: Tensor) -> list[StageView]:
    """Run a backbone on an image and record the branches of each stage's last block.

    Args:
        backbone: In evaluation mode.
        image: One normalised image `(1, in_channels, H, W)`.

    Returns:
        One view for each stage that the backbone runs.
    """
    stages = [cast(Block, stage[-1]) for stage in backbone.stages]  # type: ignore[index]
    stages = stages[: backbone.out_indices[-1] + 1]
    watched = [m for block in stages for m in block.attn.modules()]
    with _outputs(watched) as outputs:
        backbone(image)
    return [_view(block, outputs) for block in stages]


def spectrum(x: Tensor) -> _Floats:
    """How strong each frequency is beside the map's mean.

    Args:
        x: A map `(1, C, h, w)`.

    Returns:
        Logarithm (base 10) of the Fourier amplitude, mean over channels and over all directions
        of a band of frequencies, less that of the lowest band; of shape (10,) for bands from 0
        to the highest frequency, half a cycle a position. NaN for bands that a small map has
        nothing in.
    """
    amplitude = torch.fft.fft2(x[0].double()).abs().clamp_min(1e-12).log10().mean(0).numpy()
    rows, columns = (np.fft.fftfreq(side) for side in amplitude.shape)
    frequency = np.maximum(np.abs(rows)[:, None], np.abs(columns)[None])
    band = np.minimum((frequency * 2 * _SPECTRUM_BINS).astype(int), _SPECTRUM_BINS - 1)
    counts = np.bincount(band.ravel(), minlength=_SPECTRUM_BINS)
    sums = np.bincount(band.ravel(), amplitude.ravel(), minlength=_SPECTRUM_BINS)
    means = np.where(counts, sums / np.maximum(counts, 1), np.nan)
    return means - means[0]


def draw(views: list[StageView], image: NDArray[np.uint8]) -> Figure:
    """Draw the views as a sheet, one column per stage, beside the image.

    Args:
        views: As `view` returns them.
        image: The image as the network saw it, RGB of shape (H, W, 3).
    """
    columns = 1 + len(views)
    height, width = image.shape[:2]
    row = 2.4 * height / width
    figure = Figure(figsize=(3 * columns, 2 * row + 3.4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, columns, squeeze=False, height_ratios=[row, row, 2.4])
    axes[0, 0].imshow(image)
    axes[0, 0].set_title('image')
    _label(axes[0, 1], "AttnConv's weights")
    _label(axes[1, 1], 'pooled attention')
    for left in axes[:, 0]:
        left.axis('off')
    for column, stage in enumerate(views, start=1):
        axes[0, column].set_title(f'stage {column}')
        _show(axes[0, column], stage.weights, image.shape)
        _show(axes[1, column], stage.attention, image.shape, under=image)
        _plot_spectra(axes[2, column], stage)
    axes[2, 1].set_ylabel('log10 amplitude,\nof the lowest')
    return figure


def _label(axes: Axes, text: str) -> None:
    axes.text(-0.06, 0.5, text, transform=axes.transAxes, rotation=90, ha='right', va='center')


@contextmanager
def _outputs(modules: list[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Collect copies of the outputs of modules, as the network may overwrite them in place."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        outputs[module] = output.clone()

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _view(block: Block, outputs: dict[nn.Module, Tensor]) -> StageView:
    branches = cast(list[AttnConv], list(block.attn.local))
    gates = [(branch.scale * outputs[branch.gate]).tanh().abs() for branch in branches]
    pooled = block.attn.pooled
    return StageView(
        weights=torch.cat(gates, 1)[0].mean(0).double().numpy() if gates else None,
        attention=_attention(pooled, outputs) if pooled is not None else None,
        local_spectrum=(
            spectrum(torch.cat([outputs[branch] for branch in branches], 1)) if branches else None
        ),
        global_spectrum=spectrum(outputs[pooled]) if pooled is not None else None,
    )


def _attention(pooled: PooledAttention, outputs: dict[nn.Module, Tensor]) -> _Floats:
    keys = outputs[pooled.kv].chunk(2, dim=1)[0]
    queries, keys_by_head = (
        x.reshape(pooled.num_heads, x.shape[1] // pooled.num_heads, -1)
        for x in (outputs[pooled.q], keys)
    )
    scale = queries.shape[1] ** -0.5
    total = torch.zeros(keys_by_head.shape[2], dtype=torch.double)
    for chunk in torch.split(queries, _QUERIES_AT_ONCE, dim=2):
        scores = (scale * chunk.transpose(1, 2) @ keys_by_head).softmax(-1)
        total += scores.double().sum((0, 1))
    share = total / total.sum() * len(total)
    return share.reshape(keys.shape[2:]).numpy()


def _show(
    axes: Axes,
    values: _Floats | None,
    shape: tuple[int, ...],
    under: NDArray[np.uint8] | None = None,
) -> None:
    axes.axis('off')
    if values is None:
        axes.text(0.5, 0.5, 'no such branch', ha='center', va='center')
        return
    height, width = shape[:2]
    extent = (0, width, height, 0)
    if under is not None:
        axes.imshow(under, extent=extent)
    shown = axes.imshow(values, extent=extent, cmap='viridis', alpha=None if under is None else 0.6)
    axes.figure.colorbar(shown, ax=axes, shrink=0.6)


def _plot_spectra(axes: Axes, stage: StageView) -> None:
    bands = (np.arange(_SPECTRUM_BINS) + 0.5) / _SPECTRUM_BINS
    for values, label in ((stage.local_spectrum, 'local'), (stage.global_spectrum, 'global')):
        if values is not None:
            kept = ~np.isnan(values)
            axes.plot(bands[kept], values[kept], marker='.', label=label)
    axes.set(xlabel='frequency, of the highest')
    axes.grid(alpha=0.3)
    axes.legend()
