"""Plots loss, learning rate and evaluation metrics of a training run from mmengine's logs."""

import json
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import UserError

# Task that each of the hosts' main metrics measures.
MAIN_METRICS = {
    'coco/segm_mAP': 'instance segmentation',
    'coco/bbox_mAP': 'detection',
    'mIoU': 'semantic segmentation',
    'accuracy/top1': 'classification',
}
# Fields that mmengine logs beside the results.
_BOOKKEEPING = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory'}
_NO_OBJECTS = -1  # pycocotools' result where there was nothing to find

Points = dict[str, dict[int, float]]


def read_curves(work_dir: str | Path) -> tuple[Points, Points]:
    """Read and join the logs of all runs in a work directory.

    Each run replaces what earlier ones logged from its own first iteration on. mmengine records
    some evaluations by epoch; they are placed at the last training line before them. A resumed run
    may begin with the evaluation of its checkpoint.

    Args:
        work_dir: Folder with one folder per run.

    Returns:
        Training scalars and evaluation metrics: values by name and iteration.

    Raises:
        UserError: If no training iteration was logged.
    """
    training: Points = defaultdict(dict)
    metrics: Points = defaultdict(dict)
    ends: dict[int, int] = {}  # the last iteration that was logged of each epoch
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        last = None
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # A killed run leaves a broken last line.
                continue
            if 'iter' in record:
                if last is None:
                    for points in [*training.values(), *metrics.values()]:
                        for iteration in [i for i in points if i >= record['iter']]:
                            del points[iteration]
                last = ends[record.get('epoch', 0)] = record['iter']
                target, iteration = training, last
            else:
                step = record['step']
                target, iteration = metrics, max(step, last or ends.get(step, 0))
            if not iteration:  # The validation of a run without training.
                continue
            for name, value in record.items():
                is_number = isinstance(value, int | float) and value != _NO_OBJECTS
                if is_number and name not in _BOOKKEEPING:
                    target[name][iteration] = value
    if not training:
        raise UserError(f'no training iteration was logged in {work_dir}')
    return training, {name: points for name, points in metrics.items() if points}


def main_metric(reported: Collection[str]) -> str:
    """Choose the result of an evaluation: the first of `MAIN_METRICS` that it reports.

    If it reports none of them, this is the first that it reports, as of the host's
    `save_best='auto'`.

    Args:
        reported: Names of what it reports, in this order.

    Raises:
        UserError: If it reports nothing.
    """
    for name in (*MAIN_METRICS, *reported):
        if name in reported and name not in _BOOKKEEPING:
            return name
    raise UserError(
        'no evaluation reported a result: the config needs val_dataloader and val_evaluator, and '
        'mmdet reports none for a detector that finds no object'
    )


def plot_curves(work_dir: str | Path, out: str | Path | None = None) -> Path:
    """Draw losses with the learning rate, and every evaluation metric, against the iteration.

    Args:
        work_dir: Folder with one folder per run.
        out: Image file to write; `curves.png` in `work_dir` by default.

    Returns:
        The file written.

    Raises:
        UserError: As `read_curves`, or if the file does not have the ending of an image.
    """
    target = Path(work_dir) / 'curves.png' if out is None else Path(out)
    require_image_name(target)
    training, metrics = read_curves(work_dir)
    panels: dict[str, Points] = {'loss': {}}
    for name, points in training.items():
        if name.rpartition('.')[2].startswith('loss'):  # Models prefix those of their parts.
            panels['loss'][name] = points
    for name, points in metrics.items():
        group, short = _split_name(name)
        panels.setdefault(group, {})[short] = points
    figure = Figure(figsize=(9, 3.6 * len(panels)), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (group, lines) in zip(axes, panels.items(), strict=True):
        for name, points in lines.items():
            panel.plot([*points], [*points.values()], marker='.', label=name)
        panel.set_ylabel(group)
        panel.set_ylim(bottom=min(0, panel.get_ylim()[0]))
        panel.legend(fontsize='small')
        panel.grid(alpha=0.3)
    rate = axes[0].twinx()
    rate.plot([*training['lr']], [*training['lr'].values()], color='grey', linestyle=':')
    rate.set_ylabel('learning rate (dotted)')
    axes[-1].set_xlabel('iteration')
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    return target


def require_image_name(path: str | Path) -> None:
    """Check that matplotlib can write a file of this name.

    Raises:
        UserError: If the name does not have the ending of an image.
    """
    if Path(path).suffix[1:].lower() not in FigureCanvasAgg.get_supported_filetypes():
        raise UserError(f'{path} must have the ending of an image, such as .png')


def _split_name(metric: str) -> tuple[str, str]:
    """Split a metric's name into those it shares a panel with and its own part of the name.

    `coco/bbox_mAP_50` is (`coco/bbox`, `mAP_50`), `accuracy/top1` is (`accuracy`, `top1`).
    """
    group, slash, name = metric.rpartition('/')
    family, underscore, rest = name.partition('_')
    if underscore:
        return f'{group}{slash}{family}', rest
    return group or 'evaluation', name
