"""Measures time and peak memory of single runs."""

import ctypes
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

Step = Callable[[], Any]

MEMORY = {
    'cpu': 'peak resident memory of a run above what was resident before it',
    'cuda': 'peak of the allocator in a run above what was allocated before it',
}
TURN = 0.3
MATMUL_SIDE = 2048


def time_interleaved(
    steps: Mapping[str, Step], rounds: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time the steps in turns, so that a disturbance of the machine affects all alike.

    torch's Timer first runs a step to warm up, as the caches and spinning threads of the previous
    step affect it, then repeats it for `TURN` seconds, at least once.

    Args:
        steps: Runs by name, warmed up.
        rounds: Turns of each.

    Returns:
        Seconds of a run in every turn, the median of the turn, by name; and by name what stopped
        the others, as there is less memory beside all of them than in warming up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    errors: dict[str, str] = {}
    for _ in range(rounds):
        for name in list(seconds):
            try:
                seconds[name].append(_time(steps[name]))
            except RuntimeError as error:
                errors[name] = str(error).splitlines()[0]
                del seconds[name]
    return seconds, errors


def _time(step: Step) -> float:
    timer = Timer('step()', globals=dict(step=step), num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=TURN).median


def peak_memory(step: Step, device: str) -> float | None:
    """Peak memory of a run above what was held before it, in MB (see `MEMORY`); None if the
    system does not report it; for a CPU only Linux does."""
    if device == 'cuda':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if sys.platform != 'linux':
        return None
    # Freed memory that glibc keeps would hide that much of the memory of the run.
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # Resets VmHWM to VmRSS.
    before = _resident('VmRSS')
    step()
    return (_resident('VmHWM') - before) / 1e6


def count_gflop(model: nn.Module, size: tuple[int, int]) -> float:
    """Count a forward pass for one image, multiply-adds as two, on no data.

    Args:
        model: Any whose operations torch's counter knows: the literal baseline.
        size: Height and width in pixels.
    """
    with torch.device('meta'), FlopCounterMode(display=False) as counter:
        model.eval().to('meta')(torch.empty(1, 3, *size))
    return counter.get_total_flops() / 1e9


def matmul_gflops(device: str) -> float:
    """Rate of the device's own matrix product of `MATMUL_SIDE` squared, in single precision on a
    CPU and float16 on a GPU: the best of ten turns, in GFLOP/s."""
    side = MATMUL_SIDE
    a = torch.randn(side, side, device=device, dtype=None if device == 'cpu' else torch.float16)
    return 2 * side**3 / min(_time(lambda: a @ a) for _ in range(10)) / 1e9


def _resident(field: str) -> int:
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.findall(rf'{field}:\s+(\d+) kB', status)[0])
