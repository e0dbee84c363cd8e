import pytest
import timm
import torch

from benchmarks.frontier import (
    EXPORTED,
    LARGE,
    PEERS,
    build_pyramid,
    frontier_table,
    own_size,
    plot_frontier,
)


def test_peers_are_models_with_weights_of_timm():
    known = {*timm.list_pretrained()}
    others = [peer for peer in PEERS.values() if peer.family != 'CloFormer']
    assert {peer.build for peer in others} <= known
    for peer in others:
        assert timm.get_pretrained_cfg(peer.build).input_size[1] == peer.size


@pytest.mark.parametrize('name', ['CloFormer-XXS', 'RepViT-M0.9', 'MobileNetV4-S', 'SHViT-S3'])
@torch.no_grad()
def test_a_pyramid_is_ready_for_inference(name):
    model = build_pyramid(name)
    assert not model.training
    maps = model(torch.randn(1, 3, 128, 128))
    widths = [out.shape[-1] for out in maps]
    assert len(widths) >= 3
    assert widths == sorted(widths, reverse=True)
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms == [] or name not in ('CloFormer-XXS', 'RepViT-M0.9')  # Their deploy forms.


def test_table_and_plot(tmp_path):
    rows = []
    for number, name in enumerate(PEERS):
        for label in (name, name + EXPORTED):
            rows.append(dict(model=label, size=own_size(name), median_ms=10 + number, peak_mb=1))
        large = dict(median_ms=1000 + number, peak_mb=50 + number)
        failed = name == 'EfficientFormerV2-S0'
        rows.append(dict(model=name, size=LARGE, **(dict(error='shape') if failed else large)))
    results = dict(device='a CPU', rows=rows)
    lines = frontier_table(results).splitlines()
    assert len(lines) == 2 + len(PEERS)
    assert '| CloFormer-XXS | 77.0 | 10.0 | 10.0 | 1000 | 50 |' in lines
    (failed,) = [line for line in lines if 'EfficientFormerV2-S0' in line]
    assert failed.endswith('| - | - |')
    assert any(line.startswith('| FastViT-T8 (256 px) | 76.2 |') for line in lines)
    accuracies = [float(line.split(' | ')[1]) for line in lines[2:]]
    assert accuracies == sorted(accuracies)
    plot_frontier(results, tmp_path / 'plots/frontier.png')
    assert (tmp_path / 'plots/frontier.png').stat().st_size > 10_000
