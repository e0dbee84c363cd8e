#!/usr/bin/env python
"""Train a detector or segmentor from random weights and from pre-trained ones, with several seeds,
and print mean and standard deviation of the task's main metric at each evaluation."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import torch
from mmengine.runner import CheckpointLoader

from mmcloformer.analysis.curves import main_metric, read_curves
from mmcloformer.analysis.environment import environment
from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.apis.config import read_config
from mmcloformer.errors import UserError

TRAIN = Path(__file__).parents[1] / 'train.py'
RANDOM = 'random'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoints',
        nargs='*',
        metavar='[NAME=]CHECKPOINT',
        help="backbone weights to compare with random ones: a file or 'mmcloformer://NAME' "
        '(NAME in the table: by default that of the file; needed if the path contains =)',
    )
    parser.add_argument('--seeds', type=int, default=3, help='number of trainings per start')
    parser.add_argument('--work-dir', type=Path, required=True, help='new folder for the trainings')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', default=[], help='as for train.py'
    )
    args = parser.parse_args()
    if args.work_dir.exists():
        raise UserError(f'{args.work_dir} exists; choose a new folder for the trainings')
    model = read_config(args.config).get('model') or {}
    backbone = model.get('backbone')
    if not backbone:
        raise UserError(f'{args.config} has no model.backbone whose weights can be compared')
    if model.get('init_cfg'):
        raise UserError(
            f'{args.config} sets model.init_cfg, which replaces the weights that are compared: '
            'remove it'
        )
    own = backbone.get('init_cfg') or {}
    if isinstance(own, list) or set(own) - {'type', 'checkpoint'}:
        raise UserError(
            f'{args.config} sets model.backbone.init_cfg={own}; remove it, as this tool sets '
            'its type and checkpoint, and the other fields would apply to every checkpoint'
        )
    if args.seeds < 1:
        raise UserError(f'--seeds is {args.seeds}; at least one training per start is needed')
    starts = read_starts(args.checkpoints)
    for path in filter(None, starts.values()):  # Find unreadable files now.
        CheckpointLoader.load_checkpoint(path, map_location='cpu')
    runs: dict[str, list[dict[int, float]]] = {name: [] for name in starts}
    results = dict(
        config=args.config,
        checkpoints=starts,
        options=args.cfg_options,
        **environment('cuda' if torch.cuda.is_available() else 'cpu'),
        runs=runs,
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + '\n')
    for seed in range(args.seeds):
        for name, checkpoint in starts.items():
            work_dir = args.work_dir / f'{name}-{seed}'
            train(args.config, checkpoint, seed, work_dir, args.cfg_options)
            _, metrics = read_curves(work_dir)
            if metrics:
                results['metric'] = main_metric(metrics)
            runs[name].append(metrics.get(results.get('metric', ''), {}))
            args.out.write_text(json.dumps(results, indent=1) + '\n')
    print(table(results.get('metric') or main_metric(()), runs))


def read_starts(checkpoints: list[str]) -> dict[str, str | None]:
    """Checkpoint of each start by the start's name; None for random weights."""
    starts: dict[str, str | None] = {RANDOM: None}
    for argument in checkpoints:
        name, equals, checkpoint = argument.partition('=')
        if not equals:
            name, checkpoint = Path(argument).stem, argument
        if not checkpoint or not name or Path(name).name != name or name in starts:
            raise UserError(
                f'{argument}: the name {name!r} is empty, in use or no folder name, or there is no '
                'checkpoint; give another as NAME=CHECKPOINT'
            )
        starts[name] = checkpoint
    return starts


def train(
    config: str, checkpoint: str | None, seed: int, work_dir: Path, options: list[str]
) -> None:
    """Train with the backbone started from a checkpoint, or from random weights."""
    field = 'model.backbone.init_cfg'
    start = [f'{field}.type=Pretrained', f"{field}.checkpoint='{checkpoint}'"]
    command = [sys.executable, str(TRAIN), config, '--work-dir', str(work_dir), '--cfg-options']
    command += [*options, *(start if checkpoint else [f'{field}=None'])]
    # load_from would replace the weights of either start.
    command += ['load_from=None', f'randomness.seed={seed}']
    if subprocess.run(command).returncode:
        raise UserError(
            f'the training in {work_dir} failed, see above; the results before it are in --out'
        )


def table(metric: str, runs: dict[str, list[dict[int, float]]]) -> str:
    """Format mean and standard deviation over the seeds per evaluation, and the iteration at which
    each pre-trained start reaches the final result of random weights.

    mmdet reports nothing for a detector that finds no object, which counts as 0.
    """
    seeds = len(runs[RANDOM])
    iterations = sorted({i for same in runs.values() for run in same for i in run}, key=int)
    lines = [f'| iteration | {" | ".join(runs)} |', f'|{"---|" * (1 + len(runs))}']
    means: dict[str, dict[int, float]] = {name: {} for name in runs}
    for iteration in iterations:
        cells = []
        for name, same in runs.items():
            values = [run.get(iteration, 0) for run in same]
            means[name][iteration] = mean(values)
            cells.append(f'{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}')
        lines.append(f'| {iteration} | {" | ".join(cells)} |')
    end = means[RANDOM][iterations[-1]]
    lines += ['', f'{metric}, mean and standard deviation over {seeds} seeds']
    for name in runs:
        if name != RANDOM:
            reached = [i for i in iterations if means[name][i] >= end]
            when = f'at iteration {reached[0]}' if reached else 'never'
            lines.append(f'{name} reaches the final {end:.3f} of random weights {when}')
    return '\n'.join(lines)


if __name__ == '__main__':
    exit_on_user_error(main)
