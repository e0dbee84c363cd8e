"""docs/speed.md repeats what the committed results say."""

import json
import re

import pytest

from benchmarks.frontier import frontier_table
from benchmarks.models import BFLOAT16, COMPILED_BFLOAT16, LITERAL
from tests.conftest import ROOT

PAGE = (ROOT / 'docs/speed.md').read_text()


def load(name):
    return json.loads((ROOT / f'benchmarks/{name}.json').read_text())


def test_the_frontier():
    assert frontier_table(load('frontier')) in PAGE


def test_bfloat16():
    inference = [row for row in load('bfloat16')['rows'] if row['mode'] == 'inference']
    rows = {(row['model'], row['size']): row for row in inference}
    for size in ('224x224', '800x1280'):
        base = rows[LITERAL, size]['median_ms']
        line = re.search(rf'^\| {size} \| (.*) \|$', PAGE, re.MULTILINE)[1].split(' | ')
        models = (LITERAL, 'deploy form', 'compiled', BFLOAT16, COMPILED_BFLOAT16)
        for cell, model in zip(line, models, strict=True):
            ms, times = map(
                float, re.fullmatch(r'([\d.]+) ms(?:, ([\d.]+) times)?', cell).groups('1')
            )
            assert ms == pytest.approx(rows[model, size]['median_ms'], abs=0.51)
            assert times == pytest.approx(base / rows[model, size]['median_ms'], abs=0.006)


def test_training_on_a_cpu():
    rows = [r for name in ('224', 'small') for r in load(f'training-cpu-{name}')['rows']]
    ms = {(r['model'], r['mode'], r['size'], r['batch']): r['median_ms'] for r in rows}
    for model, mode, *setting in ms:
        if (model, mode) == (LITERAL, 'training'):
            size, batch = setting
            literal, ours = (ms[name, mode, size, batch] for name in (LITERAL, 'training form'))
            cells = f'{literal:.0f} | {ours:.0f} | {literal / ours:.2f}'
            assert f'| {size}, batch {batch} | {cells} |' in PAGE


def test_a_gpu():
    rows = [r for name in ('cuda-800x1280', 'cuda-224') for r in load(name)['rows']]
    measured = {(r['model'], r['mode'], r['size'], r['batch']): r for r in rows}
    models = (LITERAL, 'training form', 'deploy form', 'PVTv2-B1', 'ResNet-50')
    pattern = r'^\| (inference|training) (\S+), batch (\d+), (ms|MB) \| (.*) \|$'
    lines = re.findall(pattern, PAGE, re.MULTILINE)
    assert len(lines) == 6
    for mode, size, batch, unit, cells in lines:
        for cell, model in zip(cells.split('|'), models, strict=True):
            row = measured.get((model, mode, size, int(batch)))
            assert bool(cell.strip()) == bool(row)
            if row:
                field = 'median_ms' if unit == 'ms' else 'peak_mb'
                assert int(cell) == pytest.approx(row[field], abs=0.51)


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
