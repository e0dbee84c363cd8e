"""Runs benchmark jobs and writes their results as a JSON file, a table and a plot."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.progress import track

from mmcloformer.analysis.environment import environment
from mmcloformer.errors import ConfigError

from . import frontier
from .literal import LiteralCloFormer
from .measure import MEMORY, Step, count_gflop, matmul_gflops, peak_memory, time_interleaved
from .models import (
    LITERAL,
    ONNXRUNTIME,
    OURS,
    PEERS,
    Setting,
    backbone_step,
    build_backbone,
    config_step,
)

BACKBONES = (LITERAL, *OURS, *PEERS)
# Sides in pixels of the square images of a growth plot.
SIDES = (224, 384, 512, 768, 1024, 1536, 2048)
Row = dict[str, Any]


class Job(NamedTuple):
    """Models to compare in every combination of the settings.

    Attributes:
        models: Names of `BACKBONES`, or config files.
        sizes: Heights and widths in pixels.
        batches: Batch sizes.
        training: Modes: inference, training or both.
    """

    models: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    training: tuple[bool, ...] = (False, True)


def run_jobs(
    jobs: Sequence[Job], arch: str, device: str, rounds: int, out: str | Path
) -> dict[str, Any]:
    """Measure all jobs; models of the same setting take turns.

    Args:
        jobs: What to measure.
        arch: Size of CloFormer among the backbones.
        device: `'cpu'` or `'cuda'`.
        rounds: Timed runs of each model in each setting.
        out: JSON file, rewritten after each setting.

    Returns:
        The environment and one row per model and setting; a model that does not take a setting
        (its size, the memory or a package) has the reason in `error`.

    Raises:
        ConfigError: If a model is neither a name nor a config file.
    """
    counts = {
        f'{h}x{w}': round(count_gflop(LiteralCloFormer(arch), (h, w)), 2)
        for h, w in dict.fromkeys(size for job in jobs for size in job.sizes)
    }
    rows: list[Row] = []
    results = dict(
        arch=arch,
        **environment(device),
        precision='float16 autocast' if device == 'cuda' else 'float32',
        memory=MEMORY[device],
        matmul_gflops=round(matmul_gflops(device), 1),
        rounds=rounds,
        gflops=counts,
        rows=rows,
    )
    settings = [
        (job.models, Setting(device, size, batch, training))
        for job in jobs
        for size in job.sizes
        for batch in job.batches
        for training in job.training
    ]
    for models, setting in track(settings, 'Measuring'):
        rows += _measure(models, setting, arch, rounds)
        save(results, out)
    return results


def _measure(names: Sequence[str], setting: Setting, arch: str, rounds: int) -> list[Row]:
    rows: dict[str, Row] = {}
    steps: dict[str, Step] = {}
    size = f'{setting.size[0]}x{setting.size[1]}'
    labels = _labels(names)
    for name in names:
        mode = 'training' if setting.training else 'inference'
        row: Row = dict(model=labels[name], size=size, batch=setting.batch, mode=mode)
        try:
            step = _prepare(name, setting, arch)
            if step is None:
                continue
            step()
            # onnxruntime keeps what it has allocated, so a second run would show nothing.
            row['peak_mb'] = None if ONNXRUNTIME in name else peak_memory(step, setting.device)
            steps[name] = step
        except ConfigError:
            raise
        # Shapes that do not fit, memory, or a package that is not installed.
        except (RuntimeError, ValueError, ImportError) as error:
            row['error'] = str(error).splitlines()[0]
        rows[name] = row
    timed, errors = time_interleaved(steps, rounds)
    for name, seconds in timed.items():
        times = dict(median_ms=median(seconds), fastest_ms=min(seconds))
        rows[name] |= {field: round(1e3 * time, 3) for field, time in times.items()}
    for name, reason in errors.items():
        rows[name]['error'] = reason
    return list(rows.values())


def _prepare(name: str, setting: Setting, arch: str) -> Step | None:
    if name in BACKBONES:
        return backbone_step(name, build_backbone(name, arch), setting)
    pyramid = name.removesuffix(frontier.EXPORTED)
    if pyramid in frontier.PEERS:
        model = frontier.build_pyramid(pyramid, deploy=not setting.training)
        return backbone_step(name if pyramid == name else ONNXRUNTIME, model, setting)
    return config_step(name, setting)


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Return a name in the table for each model; that of a config file is its stem, if unique."""
    stems = {
        name: name
        if name in BACKBONES or name.removesuffix(frontier.EXPORTED) in frontier.PEERS
        else Path(name.rpartition('::')[2]).stem
        for name in names
    }
    counts = Counter(stems.values())
    return {name: stem if counts[stem] == 1 else name for name, stem in stems.items()}


def plot_growth(results: dict[str, Any], path: str | Path) -> None:
    """Plot inference time and peak memory over the side of square images, one line per model.

    Args:
        results: As `run_jobs` returns them.
        path: Image file to write.
    """
    figure = Figure(figsize=(10, 4), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    rows = [r for r in results['rows'] if r['mode'] == 'inference' and 'median_ms' in r]
    for axes, field, label in zip(
        panels, ('median_ms', 'peak_mb'), ('time, ms (median)', 'peak memory, MB')
    ):
        for model in dict.fromkeys(row['model'] for row in rows):
            points = [(int(r['size'].split('x')[0]), r[field]) for r in rows if r['model'] == model]
            axes.plot(*zip(*sorted(points)), marker='o', label=model)
        axes.set(xscale='log', yscale='log', xlabel='side of the image, pixels', ylabel=label)
        axes.set_xticks(SIDES, [str(side) for side in SIDES])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def table(results: dict[str, Any]) -> str:
    """Lay results out as Markdown, one table a setting, ratios against the literal baseline.

    The share of the floor is the time that the operations would take at the rate of the
    device's matrix product, over the measured time; a training step counts as three passes.
    """
    lines = [
        f'{results["device"]}, {results["threads"]} threads, {results["precision"]}, torch '
        f'{results["versions"]["torch"]}; matrix product {results["matmul_gflops"]:.0f} GFLOP/s; '
        f'medians of {results["rounds"]}; CloFormer-{results["arch"]}; memory: {results["memory"]}.'
    ]
    settings = dict.fromkeys((r['mode'], r['size'], r['batch']) for r in results['rows'])
    for mode, size, batch in settings:
        rows = [
            r for r in results['rows'] if (r['mode'], r['size'], r['batch']) == (mode, size, batch)
        ]
        base = next((r for r in rows if r['model'] == LITERAL and 'median_ms' in r), None)
        passes = 3 if mode == 'training' else 1
        floor = 1e3 * passes * batch * results['gflops'][size] / results['matmul_gflops']
        lines += [
            f'\n**{mode}, {size}, batch {batch}** (floor of CloFormer {floor:.0f} ms)\n',
            '| model | median ms | fastest ms | images/s | times the literal | memory MB | share |',
            '|---|---|---|---|---|---|---|',
        ]
        lines += [_line(row, base) for row in rows]
    return '\n'.join(lines)


def _line(row: Row, base: Row | None) -> str:
    if 'error' in row:
        return f'| {row["model"]} | {row["error"]} | | | | | |'
    faster = f'{base["median_ms"] / row["median_ms"]:.2f}' if base else ''
    memory = row['peak_mb']
    share = f'{memory / base["peak_mb"]:.2f}' if base and memory is not None else ''
    cells = (
        row['model'],
        f'{row["median_ms"]:.1f}',
        f'{row["fastest_ms"]:.1f}',
        f'{1e3 * row["batch"] / row["median_ms"]:.2f}',
        faster,
        '' if memory is None else f'{memory:.0f}',
        share,
    )
    return f'| {" | ".join(cells)} |'


def save(results: dict[str, Any], path: str | Path) -> None:
    """Write results as JSON, one row a line."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({k: v for k, v in results.items() if k != 'rows'}, indent=1)[:-2]
    rows = ',\n  '.join(json.dumps(row) for row in results['rows'])
    path.write_text(f'{head},\n "rows": [\n  {rows}\n ]\n}}\n')
