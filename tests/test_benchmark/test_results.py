"""docs/speed.md repeats what the committed results say."""

import json
import re

import pytest

from mmcloformer.benchmark.frontier import frontier_table
from mmcloformer.benchmark.models import BFLOAT16, COMPILED_BFLOAT16, LITERAL
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
