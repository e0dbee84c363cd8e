"""The benchmark on small images, with each model run a few times only."""

import json
import re

import pytest
import torch

from benchmarks import frontier
from benchmarks import measure as measuring
from mmcloformer.models.deploy import cpu_has_bfloat16
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """No repetitions of a short step, and a small product of matrices."""
    monkeypatch.setattr(measuring, 'TURN', 0)
    monkeypatch.setattr(measuring, 'MATMUL_SIDE', 64)


def measure(tool_main, folder, *args):
    out = folder / 'results.json'
    printed = tool_main('benchmark.py', '--arch', 'xxs', '--rounds', 2, '--out', out, *args)
    return json.loads(out.read_text()), printed


def test_backbones(tool_main, tmp_path):
    models = ('literal', 'training form', 'deploy form', 'PVTv2-B0', 'EfficientFormer-L1')
    results, printed = measure(tool_main, tmp_path, '--sizes', 64, '64x96', '--models', *models)

    assert results['threads'] >= 1
    assert results['matmul_gflops'] > 0
    assert results['versions']['torch']
    rows = {(row['model'], row['size'], row['mode']): row for row in results['rows']}
    # The deploy form does not train; EfficientFormer takes no other size than 224x224.
    assert len(rows) == 2 * (5 + 4)
    for (model, _, _), row in rows.items():
        assert ('error' in row) == (model == 'EfficientFormer-L1')
        if 'error' not in row:
            assert row['fastest_ms'] <= row['median_ms']
    for mode in ('inference', 'training'):
        base, ours = rows['literal', '64x64', mode], rows['training form', '64x64', mode]
        assert f'| {base["median_ms"] / ours["median_ms"]:.2f} |' in printed


def test_a_size_that_a_model_does_not_take(tool_main, tmp_path):
    models = ('literal', 'deploy form', 'PVTv2-B0')
    results, printed = measure(tool_main, tmp_path, '--sizes', 32, '--models', *models)
    failed = {(row['model'], row['mode']) for row in results['rows'] if 'error' in row}
    assert failed == {('literal', 'training')}  # A BatchNorm of one pixel.
    assert len(results['rows']) == 5
    assert '| literal | Expected more than 1 value per channel' in printed


@pytest.mark.slow
def test_onnxruntime(tool_main, tmp_path):
    options = ('--sizes', 64, '--batches', 1, 2, '--models', 'literal', 'onnxruntime')
    results, printed = measure(tool_main, tmp_path, *options)
    rows = [row for row in results['rows'] if row['model'] == 'onnxruntime']
    assert [(row['mode'], row['batch']) for row in rows] == [('inference', 1), ('inference', 2)]
    assert all(row['median_ms'] > 0 and row['peak_mb'] is None for row in rows)
    assert '| onnxruntime | ' in printed
    assert results['versions']['onnxruntime']


def test_whole_models(tool_main, tmp_path):
    names = ('retinanet_cloformer_xxs_coco', 'cloformer_xxs_imagenet')
    paths = [ROOT / 'configs' / f'{name}.py' for name in names]
    results, printed = measure(tool_main, tmp_path, '--sizes', 64, '--models', *paths)
    found = {(row['model'], row['mode']) for row in results['rows']}
    assert found == {(name, mode) for name in names for mode in ('inference', 'training')}
    assert all(row['median_ms'] > 0 for row in results['rows'])
    assert all(name in printed for name in names)


@pytest.mark.slow
def test_the_frontier_is_drawn(tool_main, tmp_path, monkeypatch):
    few = {name: frontier.PEERS[name] for name in ('CloFormer-XXS', 'MobileNetV4-S')}
    for name in set(frontier.PEERS) - set(few):
        monkeypatch.delitem(frontier.PEERS, name)
    plot = tmp_path / 'frontier.png'
    results, printed = measure(tool_main, tmp_path, '--frontier', plot)
    assert len(results['rows']) == 6
    assert all(row['median_ms'] > 0 for row in results['rows'])
    assert '| MobileNetV4-S | 73.8 |' in printed
    assert plot.exists()


@pytest.mark.skipif(not cpu_has_bfloat16(), reason='the CPU has no units for bfloat16')
def test_bfloat16(tool_main, tmp_path):
    name = 'deploy form, bfloat16'
    results, _ = measure(tool_main, tmp_path, '--sizes', 64, '--models', 'literal', name)
    modes = [row['mode'] for row in results['rows'] if row['model'] == name]
    assert modes == ['inference']


def test_growth_is_drawn(tool_main, tmp_path):
    plot = tmp_path / 'growth.png'
    results, _ = measure(tool_main, tmp_path, '--sizes', 32, 64, '--growth', plot)
    assert {row['model'] for row in results['rows']} == {'literal', 'deploy form'}
    assert {row['mode'] for row in results['rows']} == {'inference'}
    assert plot.read_bytes().startswith(b'\x89PNG')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is one')
def test_no_gpu_is_said(tool_error, tmp_path):
    message = tool_error('benchmark.py', '--device', 'cuda', '--out', tmp_path / 'x.json')
    assert 'finds no GPU' in message


def test_an_unknown_model_is_said(tool_error, tmp_path):
    message = tool_error('benchmark.py', '--models', 'nosuch', '--out', tmp_path / 'x.json')
    assert 'error: config nosuch does not exist' in message


@pytest.mark.parametrize('option', [('--models', 'literal'), ('--sizes', 64), ('--batches', 2)])
def test_what_the_frontier_does_not_take_is_refused(tool_error, tmp_path, option):
    plot, out = tmp_path / 'frontier.png', tmp_path / 'x.json'
    message = tool_error('benchmark.py', '--frontier', plot, *option, '--out', out)
    assert 'leave out' in message
    assert option[0] in message


def test_the_printed_growth_is_the_committed_result():
    results = json.loads((ROOT / 'benchmarks/growth.json').read_text())
    rows = {(row['model'], row['size']): row for row in results['rows']}
    text = (ROOT / 'docs/speed.md').read_text()
    for size in {row['size'] for row in results['rows']}:
        literal, ours = rows['literal', size], rows['deploy form', size]
        cells = [size.partition('x')[0]]
        cells += [f'{row[key]:.0f}' for key in ('median_ms', 'peak_mb') for row in (literal, ours)]
        assert f'| {" | ".join(cells)} |' in text


def test_the_printed_goals_are_the_committed_result():
    results = json.loads((ROOT / 'benchmarks/cpu.json').read_text())
    rows = {(r['model'], r['size'], r['mode']): r for r in results['rows']}
    text = (ROOT / 'docs/speed.md').read_text()

    def ratios(baseline, eager, size, mode, key='median_ms'):
        base = rows[baseline, size, mode][key]
        found = [rows[model, size, mode][key] for model in (eager, 'compiled')]
        if key == 'peak_mb':
            return ' | '.join(f'{value / base:.2f}' for value in found)
        return ' | '.join(f'{base / value:.2f}' for value in found)

    for goal, printed in (
        ('inference 800x1280, 3.5', ratios('literal', 'deploy form', '800x1280', 'inference')),
        ('inference 224x224, 1.5', ratios('literal', 'deploy form', '224x224', 'inference')),
        ('training step 800x1280', ratios('literal', 'training form', '800x1280', 'training')),
        ('memory', ratios('literal', 'training form', '800x1280', 'training', 'peak_mb')),
        ('4 times as fast as PVTv2-B1', ratios('PVTv2-B1', 'deploy form', '800x1280', 'inference')),
    ):
        assert any(goal in line and printed in line for line in text.splitlines()), (goal, printed)


def test_the_printed_table_is_the_committed_result():
    results = json.loads((ROOT / 'benchmarks/cpu.json').read_text())
    measured = {(row['model'], row['size'], row['mode']): row for row in results['rows']}
    lines = [line.split('|')[1:-1] for line in (ROOT / 'docs/speed.md').read_text().splitlines()]
    table = [[cell.strip() for cell in line] for line in lines]
    (models,) = [line[1:] for line in table if line[:1] == ['xs, float32']]
    compared = 0
    for label, *cells in (line for line in table if line):
        if kind := re.fullmatch(r'(inference|training) (\d+x\d+), (ms|MB)', label):
            mode, size, unit = kind.groups()
            field = dict(ms='median_ms', MB='peak_mb')[unit]
            for model, cell in zip(models, cells):
                row = measured.get((model, size, mode))
                assert cell == (f'{row[field]:.0f}' if row else '')
                compared += 1
    assert compared == 8 * len(models)
