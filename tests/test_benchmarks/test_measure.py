import sys

import pytest
import torch

from benchmarks import measure
from benchmarks.literal import LiteralCloFormer
from benchmarks.measure import count_gflop, peak_memory, summary


def test_runs_take_turns(monkeypatch):
    order, now = [], [0.0]
    monkeypatch.setattr(measure.time, 'perf_counter', lambda: now[0])

    def step(name, seconds):
        order.append(name)
        now[0] += seconds

    steps = dict(
        a=lambda: step('a', 0.125 if order[-1:] == ['a'] else 0.25),
        b=lambda: step('b', 0.5),
    )
    seconds, errors = measure.time_interleaved(steps, 'cpu', rounds=3)
    assert order == list('aab' * 3)
    assert seconds['a'] == [0.125] * 3  # Without the first of each turn.
    assert seconds['b'] == [0.5] * 3
    assert not errors


def test_what_fails_beside_the_others_ends_none_of_them(monkeypatch):
    monkeypatch.setattr(measure, 'TURN', 0)
    runs = []

    def second_fails():
        runs.append(1)
        if len(runs) == 2:
            raise RuntimeError('out of memory\nand so on')

    steps = dict(a=second_fails, b=lambda: None)
    seconds, errors = measure.time_interleaved(steps, 'cpu', rounds=3)
    assert len(seconds['b']) == 3
    assert 'a' not in seconds
    assert errors == dict(a='out of memory')


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux alone tells the peak')
def test_peak_memory_is_of_the_run_alone():
    held = torch.ones(50_000_000)  # 200 MB that the run does not add.

    def step():
        return [torch.ones(25_000_000) for _ in range(2)]

    for _ in range(2):  # What the first run freed must not hide the second's.
        assert peak_memory(step, 'cpu') == pytest.approx(200, rel=0.1)
    assert peak_memory(lambda: held.sum(), 'cpu') < 20


@pytest.mark.parametrize(
    ('arch', 'size', 'gmacs'),
    [('xxs', (224, 224), 0.660), ('xs', (224, 224), 1.219), ('xs', (800, 1280), 36.26)],
)
def test_operations_are_those_of_the_network(arch, size, gmacs):
    assert count_gflop(LiteralCloFormer(arch), size) == pytest.approx(2 * gmacs, rel=0.01)


def test_summary():
    assert summary([0.003, 0.001, 0.002]) == dict(median_ms=2.0, fastest_ms=1.0)
