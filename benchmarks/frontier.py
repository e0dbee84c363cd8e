"""Published accuracy over measured latency: CloFormer among other light backbones."""

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter
from torch import nn

from mmcloformer.models import CloFormer
from mmcloformer.models.deploy import switch_to_deploy

from .models import ONNXRUNTIME

LARGE = '800x1280'
# Suffix of the name of a model that onnxruntime runs.
EXPORTED = f', {ONNXRUNTIME}'


class Peer(NamedTuple):
    """A backbone and its published accuracy.

    Attributes:
        family: Name of the line in the plot.
        build: timm's name of the model and weights, or the arch of a CloFormer.
        top1: Top-1 accuracy on ImageNet-1K, percent.
        size: Side in pixels of the images that the accuracy was measured with.
    """

    family: str
    build: str
    top1: float
    size: int = 224


# CloFormer's accuracies are the paper's. The others are of results/results-imagenet.csv in
# https://github.com/huggingface/pytorch-image-models, commit aa4b5850 (2026-08-08): measured there
# with the released weights named. The suite's own PVTv2, ResNet and MobileNetV2 are the hosts'.
PEERS: dict[str, Peer] = {
    'CloFormer-XXS': Peer('CloFormer', 'xxs', 77.0),
    'CloFormer-XS': Peer('CloFormer', 'xs', 79.8),
    'CloFormer-S': Peer('CloFormer', 's', 81.6),
    'PVTv2-B0 (timm)': Peer('PVTv2', 'pvt_v2_b0.in1k', 70.654),
    'PVTv2-B1 (timm)': Peer('PVTv2', 'pvt_v2_b1.in1k', 78.698),
    'ResNet-18 (timm)': Peer('ResNet', 'resnet18.a1_in1k', 71.504),
    'ResNet-50 (timm)': Peer('ResNet', 'resnet50.tv_in1k', 76.156),
    'MobileNetV2 (timm)': Peer('MobileNetV2', 'mobilenetv2_100.ra_in1k', 72.910),
    'MobileNetV4-S': Peer('MobileNetV4', 'mobilenetv4_conv_small.e2400_r224_in1k', 73.756),
    'MobileNetV4-M': Peer('MobileNetV4', 'mobilenetv4_conv_medium.e500_r224_in1k', 79.092),
    'RepViT-M0.9': Peer('RepViT', 'repvit_m0_9.dist_300e_in1k', 78.652),
    'RepViT-M1.0': Peer('RepViT', 'repvit_m1_0.dist_300e_in1k', 80.152),
    'RepViT-M1.1': Peer('RepViT', 'repvit_m1_1.dist_300e_in1k', 80.826),
    'EfficientFormerV2-S0': Peer(
        'EfficientFormerV2', 'efficientformerv2_s0.snap_dist_in1k', 76.102
    ),
    'EfficientFormerV2-S1': Peer(
        'EfficientFormerV2', 'efficientformerv2_s1.snap_dist_in1k', 79.684
    ),
    'FastViT-T8': Peer('FastViT', 'fastvit_t8.apple_in1k', 76.184, 256),
    'FastViT-T12': Peer('FastViT', 'fastvit_t12.apple_in1k', 79.276, 256),
    'EfficientViT-B0': Peer('EfficientViT', 'efficientvit_b0.r224_in1k', 71.408),
    'EfficientViT-B1': Peer('EfficientViT', 'efficientvit_b1.r224_in1k', 79.254),
    'SwiftFormer-XS': Peer('SwiftFormer', 'swiftformer_xs.dist_in1k', 75.600),
    'SwiftFormer-S': Peer('SwiftFormer', 'swiftformer_s.dist_in1k', 78.462),
    'SHViT-S3': Peer('SHViT', 'shvit_s3.in1k', 77.356),
    'SHViT-S4': Peer('SHViT', 'shvit_s4.in1k', 79.362, 256),
    'StarNet-S3': Peer('StarNet', 'starnet_s3.in1k', 77.378),
    'StarNet-S4': Peer('StarNet', 'starnet_s4.in1k', 78.824),
}


def own_size(name: str) -> str:
    """Return the size that the accuracy of one of `PEERS` was measured with, as in the results."""
    return f'{PEERS[name].size}x{PEERS[name].size}'


def build_pyramid(name: str, deploy: bool = True) -> nn.Module:
    """Build one of `PEERS` with random weights, in evaluation mode. It returns the feature maps
    that timm offers; four for CloFormer.

    Args:
        name: Name in `PEERS`.
        deploy: Whether to switch it to its deploy form, where it has one.
    """
    peer = PEERS[name]
    if peer.family == 'CloFormer':
        ours = CloFormer(peer.build).eval()
        if deploy:
            switch_to_deploy(ours)
        return ours
    import timm
    from timm.utils.model import reparameterize_model

    model = timm.create_model(peer.build, pretrained=False, features_only=True).eval()
    return reparameterize_model(model) if deploy else model


def plot_frontier(results: dict[str, Any], path: str | Path) -> None:
    """Plot published top-1 over measured time, one line per family: at the size of the accuracy,
    the same exported and run by onnxruntime, and as a pyramid at `LARGE`.

    Args:
        results: As `suite.run_jobs` returns them.
        path: Image file to write.
    """
    figure = Figure(figsize=(15, 5), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, sharey=True)
    titles = ('224 px, PyTorch', '224 px, onnxruntime', f'{LARGE}, PyTorch')
    families = list(dict.fromkeys(peer.family for peer in PEERS.values()))
    colors = matplotlib.colormaps['tab20'].colors  # type: ignore[attr-defined]
    for column, (axes, title) in enumerate(zip(panels, titles)):
        for number, family in enumerate(families):
            names = [name for name, peer in PEERS.items() if peer.family == family]
            times = [_measured(results, name)[column].get('median_ms') for name in names]
            points = [(t, PEERS[name].top1) for t, name in zip(times, names) if t is not None]
            if not points:
                continue
            ours = dict(marker='*', markersize=15, linewidth=2.5, color='black')
            style = ours if family == 'CloFormer' else dict(marker='o', color=colors[number])
            axes.plot(*zip(*points), label=family, **style)
        axes.set(xscale='log', title=title, xlabel='ms per image')
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel('published ImageNet-1K top-1, %')
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right center')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def frontier_table(results: dict[str, Any]) -> str:
    """Lay the results out as Markdown, sorted by accuracy."""
    lines = [
        f'| model | top-1, % | 224, ms | 224 exported, ms | {LARGE}, ms | {LARGE}, MB |',
        f'|{"---|" * 6}',
    ]
    for name, peer in sorted(PEERS.items(), key=lambda item: item[1].top1):
        small, exported, large = _measured(results, name)
        cells = [name if peer.size == 224 else f'{name} ({peer.size} px)', f'{peer.top1:.1f}']
        cells += [_cell(small, 'median_ms', 1), _cell(exported, 'median_ms', 1)]
        cells += [_cell(large, 'median_ms', 0), _cell(large, 'peak_mb', 0)]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def _measured(results: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the rows of a model: at its own size, the same exported, and at `LARGE`."""
    keys = [(name, own_size(name)), (name + EXPORTED, own_size(name)), (name, LARGE)]
    rows = {(row['model'], row['size']): row for row in results['rows']}
    return [rows.get(key, {}) for key in keys]


def _cell(row: dict[str, Any], field: str, digits: int) -> str:
    return f'{row[field]:.{digits}f}' if row.get(field) is not None else '-'
