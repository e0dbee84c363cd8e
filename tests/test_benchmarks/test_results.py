"""docs/speed.md and docs/deploy.md repeat what the committed results say."""

import json
import re

import pytest

from benchmarks import boards
from benchmarks.frontier import frontier_table
from benchmarks.models import BFLOAT16, COMPILED_BFLOAT16, LITERAL
from tests.conftest import ROOT

PAGE = (ROOT / 'docs/speed.md').read_text()


def load(name):
    return json.loads((ROOT / f'benchmarks/{name}.json').read_text())


def by_setting(*names):
    """Rows of the results by model, mode, size and batch."""
    rows = [row for name in names for row in load(name)['rows']]
    return {(row['model'], row['mode'], row['size'], row['batch']): row for row in rows}


def check_table(measured, models, pattern, count):
    """Compare the cells of the page's rows, of one model each, with the results."""
    lines = re.findall(pattern, PAGE, re.MULTILINE)
    assert len(lines) == count
    for mode, size, batch, unit, cells in lines:
        for cell, model in zip(cells.split('|'), models, strict=True):
            row = measured.get((model, mode, size, int(batch or 1)))
            assert bool(cell.strip()) == bool(row)
            if row:
                field = 'median_ms' if unit == 'ms' else 'peak_mb'
                assert int(cell) == pytest.approx(row[field], abs=0.51)


def test_a_cpu():
    models = (LITERAL, 'training form', 'deploy form', 'compiled', 'PVTv2-B1')
    pattern = r'^\| (inference|training) (\d+x\d+)(), (ms|MB) \| (.*) \|$'
    check_table(by_setting('cpu'), models, pattern, 8)


def test_the_goals_on_a_cpu():
    rows = by_setting('cpu')

    def ratios(baseline, eager, size, mode, key='median_ms'):
        base = rows[baseline, mode, size, 1][key]
        found = [rows[model, mode, size, 1][key] for model in (eager, 'compiled')]
        if key == 'peak_mb':
            return ' | '.join(f'{value / base:.2f}' for value in found)
        return ' | '.join(f'{base / value:.2f}' for value in found)

    for goal, printed in (
        ('inference 800x1280, 3.5', ratios(LITERAL, 'deploy form', '800x1280', 'inference')),
        ('inference 224x224, 1.5', ratios(LITERAL, 'deploy form', '224x224', 'inference')),
        ('training step 800x1280', ratios(LITERAL, 'training form', '800x1280', 'training')),
        ('memory', ratios(LITERAL, 'training form', '800x1280', 'training', 'peak_mb')),
        ('4 times as fast as PVTv2-B1', ratios('PVTv2-B1', 'deploy form', '800x1280', 'inference')),
    ):
        assert any(goal in line and printed in line for line in PAGE.splitlines()), goal


def test_the_growth():
    rows = by_setting('growth')
    for size in {size for _, _, size, _ in rows}:
        pair = [rows[model, 'inference', size, 1] for model in (LITERAL, 'deploy form')]
        cells = [size.partition('x')[0]]
        cells += [f'{row[key]:.0f}' for key in ('median_ms', 'peak_mb') for row in pair]
        assert f'| {" | ".join(cells)} |' in PAGE


def test_the_frontier():
    assert frontier_table(load('frontier')) in PAGE


def test_the_runtimes_for_boards():
    assert boards.table(load('boards')['rows']) in (ROOT / 'docs/deploy.md').read_text()


def test_bfloat16():
    rows = by_setting('bfloat16')
    for size in ('224x224', '800x1280'):
        base, *others = (
            rows[model, 'inference', size, 1]['median_ms']
            for model in (LITERAL, 'deploy form', 'compiled', BFLOAT16, COMPILED_BFLOAT16)
        )
        cells = [f'{base:.0f} ms', *(f'{ms:.0f} ms, {base / ms:.2f} times' for ms in others)]
        assert f'| {size} | {" | ".join(cells)} |' in PAGE


def test_training_on_a_cpu():
    rows = by_setting('training-cpu-224', 'training-cpu-small')
    for size, batch in {(size, batch) for _, _, size, batch in rows}:
        literal, ours = (
            rows[model, 'training', size, batch]['median_ms']
            for model in (LITERAL, 'training form')
        )
        cells = f'{literal:.0f} | {ours:.0f} | {literal / ours:.2f}'
        assert f'| {size}, batch {batch} | {cells} |' in PAGE


def test_a_gpu():
    models = (LITERAL, 'training form', 'deploy form', 'PVTv2-B1', 'ResNet-50')
    pattern = r'^\| (inference|training) (\S+), batch (\d+), (ms|MB) \| (.*) \|$'
    check_table(by_setting('cuda-800x1280', 'cuda-224'), models, pattern, 6)


def test_whole_detectors_on_a_gpu():
    rows = load('cuda-retinanet')['rows']
    measured = {
        (r['model'], r['mode'], r['batch']): 1e3 * r['batch'] / r['median_ms'] for r in rows
    }
    models = ('cloformer_xs_coco', 'pvtv2-b1_fpn_1x_coco', 'r50_fpn_1x_coco')
    lines = re.findall(r'^\| (inference|training), batch (\d+) \| (.*) \|$', PAGE, re.MULTILINE)
    assert len(lines) == 4
    for mode, batch, cells in lines:
        for cell, model in zip(cells.split(' | '), models, strict=True):
            images = measured[f'retinanet_{model}', mode, int(batch)]
            assert int(cell) == pytest.approx(images, abs=0.51)


def test_cloformer_beside_pvtv2_on_tiny_imagenet():
    page = (ROOT / 'docs/tiny-imagenet.md').read_text()
    for backbone, name in (('CloFormer-XXS', ''), ('PVTv2-B0', '-pvtv2-b0')):
        curves = load(f'tiny-imagenet-10-epochs{name}')
        line = re.search(rf'^\| {backbone} \| [\d.]+ M \| (\S+) \| (\S+) \|$', page, re.MULTILINE)
        for cell, metric in zip(line.groups(), ('accuracy/top1', 'accuracy/top5')):
            assert float(cell) == pytest.approx(curves[metric]['980'], abs=0.051)
