import itertools
import sys
import time

import pytest
import torch

from benchmarks import measure
from benchmarks.literal import LiteralCloFormer
from benchmarks.measure import count_gflop, peak_memory


def test_runs_take_turns(monkeypatch):
    monkeypatch.setattr(measure, 'TURN', 0)
    order = []
    steps = {name: lambda name=name: order.append(name) or time.sleep(0.01) for name in 'ab'}
    seconds, errors = measure.time_interleaved(steps, rounds=3)
    assert [name for name, _ in itertools.groupby(order)] == list('ab' * 3)
    assert all(len(turns) == 3 and min(turns) >= 0.01 for turns in seconds.values())
    assert not errors


def test_what_fails_beside_the_others_ends_none_of_them(monkeypatch):
    monkeypatch.setattr(measure, 'TURN', 0)
    runs = []

    def second_fails():
        runs.append(1)
        if len(runs) == 2:
            raise RuntimeError('out of memory\nand so on')

    steps = dict(a=second_fails, b=lambda: None)
    seconds, errors = measure.time_interleaved(steps, rounds=3)
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
