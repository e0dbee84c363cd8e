"""Plots loss, learning rate and evaluation metrics of a training run from mmengine's logs."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..errors import UserError, join_first

# Task that each of the hosts' main metrics measures.
MAIN_METRICS = {
    'coco/segm_mAP': 'instance segmentation',
    'coco/bbox_mAP': 'detection',
    'mIoU': 'semantic segmentation',
    'accuracy/top1': 'classification',
}
_SCALARS = 'vis_data/scalars.json'
# Fields that mmengine logs beside the results.
_BOOKKEEPING = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory'}
_NO_OBJECTS = -1  # pycocotools' result where there was nothing to find
_SMOOTHING = 20  # windows to a curve

_Floats = NDArray[np.float64]
_Points = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Series:
    """One logged quantity.

    Attributes:
        iterations: Training iterations, ascending, of shape (n,).
        values: The quantity there, of shape (n,).
    """

    iterations: NDArray[np.int64]
    values: _Floats


@dataclass(frozen=True)
class Curves:
    """Everything logged in a work directory, by name.

    Attributes:
        training: Losses, learning rates, and the like.
        metrics: Results of evaluation.
    """

    training: dict[str, Series]
    metrics: dict[str, Series]


def read_curves(work_dir: str | Path) -> Curves:
    """Read and join the logs of all runs in a work directory.

    Runs are joined in order of their start, each replacing what earlier ones logged from its
    own first iteration on. A broken last line, left by a killed run, is skipped.

    Where mmengine recorded an evaluation by epoch, it is placed at the last training line
    before it, since the number of iterations per epoch is not logged.

    Args:
        work_dir: Folder that holds one folder a run.

    Returns:
        The curves.

    Raises:
        UserError: If there is no log, none has a training iteration, or one is damaged.
    """
    files = sorted(Path(work_dir).glob(f'*/{_SCALARS}'))
    if not files:
        raise UserError(f'no log in {work_dir}: found no {Path(work_dir) / "*" / _SCALARS}')
    training: _Points = {}
    metrics: _Points = {}
    for file in files:
        run_training, run_metrics = _read_run(file)
        if not run_training:
            continue
        first = min(iteration for points in run_training.values() for iteration in points)
        training = _join(training, run_training, first)
        metrics = _join(metrics, run_metrics, first)
    if not training:
        raise UserError(f'no training iteration was logged in {work_dir}; is the run too young?')
    return Curves(_to_series(training), _to_series(metrics))


def main_metric(reported: Collection[str]) -> str:
    """Choose the result of an evaluation: the first of `MAIN_METRICS` that it reports.

    Args:
        reported: Names of what it reports.

    Raises:
        UserError: If it is none of them.
    """
    for name in MAIN_METRICS:
        if name in reported:
            return name
    raise UserError(
        f'no main metric ({join_first([*MAIN_METRICS])}) among {join_first([*reported])}'
    )


def plot_curves(work_dir: str | Path, out: str | Path | None = None) -> Path:
    """Draw losses with the learning rate, and every evaluation metric, against the iteration.

    Args:
        work_dir: Folder that holds one folder a run.
        out: Image file to write; `curves.png` in `work_dir` by default.

    Returns:
        The file written.

    Raises:
        UserError: As `read_curves`.
    """
    curves = read_curves(work_dir)
    target = Path(work_dir) / 'curves.png' if out is None else Path(out)
    groups: dict[str, dict[str, Series]] = defaultdict(dict)
    for name, series in curves.metrics.items():
        group, short = _split_name(name)
        groups[group][short] = series

    figure = Figure(figsize=(9, 3.6 * (1 + len(groups))), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(groups), 1, sharex=True, squeeze=False)[:, 0]
    _draw_training(axes[0], curves.training)
    for panel, (group, members) in zip(axes[1:], groups.items(), strict=True):
        for short, series in members.items():
            panel.plot(series.iterations, series.values, marker='o', markersize=3, label=short)
        panel.set_ylabel(group)
        panel.set_ylim(bottom=0)
        panel.legend(fontsize='small')
        panel.grid(alpha=0.3)
    axes[-1].set_xlabel('iteration')
    figure.suptitle(Path(work_dir).resolve().name)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    return target


def save_curves(work_dir: str | Path, out: str | Path) -> Path:
    """Write every logged quantity to a JSON file: `{name: {iteration: value}}`.

    Args:
        work_dir: Folder that holds one folder a run.
        out: File to write.

    Returns:
        The file written.

    Raises:
        UserError: As `read_curves`.
    """
    curves = read_curves(work_dir)
    points = {
        name: {int(i): float(f'{value:.5g}') for i, value in zip(series.iterations, series.values)}
        for name, series in (curves.training | curves.metrics).items()
    }
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(points, indent=1) + '\n')
    return target


def smooth(values: _Floats, window: int) -> _Floats:
    """Average over a sliding window, which shrinks towards the ends.

    Args:
        values: Values of shape (n,).
        window: Width of the window, odd and at most n.

    Returns:
        Averages of shape (n,).
    """
    ones = np.ones(window)
    return np.convolve(values, ones, 'same') / np.convolve(np.ones_like(values), ones, 'same')


def _read_run(file: Path) -> tuple[_Points, _Points]:
    """Training scalars and evaluation metrics of one run, by name and iteration."""
    training: _Points = defaultdict(dict)
    metrics: _Points = defaultdict(dict)
    last = 0
    for record in _records(file):
        # Only lines of training count iterations. The step of an evaluation is its epoch or its
        # iteration, as the run was configured.
        if 'iter' in record:
            last = record['iter']
            points, iteration = training, last
        else:
            points, iteration = metrics, max(record['step'], last)
        for name, value in record.items():
            if name not in _BOOKKEEPING and isinstance(value, int | float) and value != _NO_OBJECTS:
                points[name][iteration] = value
    return training, metrics


def _records(file: Path) -> Iterator[dict[str, Any]]:
    lines = file.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f'{file} is damaged at line {number}: {error}') from error


def _join(earlier: _Points, later: _Points, start: int) -> _Points:
    """Add a run to earlier ones, of which only what precedes its start is kept."""
    joined: _Points = defaultdict(dict)
    for name, points in earlier.items():
        joined[name] = {i: value for i, value in points.items() if i < start}
    for name, points in later.items():
        joined[name].update(points)
    return joined


def _to_series(named_points: _Points) -> dict[str, Series]:
    return {
        name: Series(np.array(list(points), np.int64), np.array(list(points.values()), np.float64))
        for name, points in named_points.items()
        if points
    }


def _split_name(metric: str) -> tuple[str, str]:
    """Split a metric's name into those it shares a panel with and its own part of the name.

    `coco/bbox_mAP_50` is (`coco/bbox`, `mAP_50`), `accuracy/top1` is (`accuracy`, `top1`).
    """
    group, slash, name = metric.rpartition('/')
    family, underscore, rest = name.partition('_')
    if underscore:
        return f'{group}{slash}{family}', rest
    return group or 'evaluation', name


def _draw_training(panel: Axes, training: dict[str, Series]) -> None:
    # Models prefix the losses of their parts: `loss_cls`, `decode.loss_ce`.
    losses = sorted(name for name in training if name.rpartition('.')[2].startswith('loss'))
    handles = []
    for name in losses:
        x, y = training[name].iterations, training[name].values
        window = max(1, len(y) // _SMOOTHING) | 1
        handles += panel.plot(x, smooth(y, window), label=name)
        if name == 'loss':
            panel.plot(x, y, color=handles[-1].get_color(), alpha=0.35, linewidth=0.7)
    panel.set_ylabel('loss')
    panel.grid(alpha=0.3)
    rate = panel.twinx()
    x, y = training['lr'].iterations, training['lr'].values
    handles += rate.plot(x, y, color='grey', linestyle=':', label='lr')
    rate.set_ylabel('learning rate')
    rate.set_ylim(bottom=0)
    panel.legend(handles=handles, fontsize='small')
