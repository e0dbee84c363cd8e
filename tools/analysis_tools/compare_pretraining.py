#!/usr/bin/env python
"""Train a detector or segmentor from random weights and from pre-trained ones, with several seeds
and in turns, and say what the pre-training was worth."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import torch

from mmcloformer.analysis.curves import main_metric, read_curves
from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.apis.config import read_config
from mmcloformer.benchmark.measure import environment
from mmcloformer.errors import UserError

TRAIN = Path(__file__).parents[1] / 'train.py'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="backbone weights: a file, or 'mmcloformer://NAME'")
    parser.add_argument('--seeds', type=int, default=3, help='trainings of each')
    parser.add_argument('--work-dir', type=Path, required=True, help='new folder for the trainings')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='as for train.py')
    args = parser.parse_args()
    if args.work_dir.exists():
        raise UserError(f'{args.work_dir} exists; choose a new folder for the trainings')
    if args.seeds < 1:
        raise UserError(f'--seeds {args.seeds}: at least one training of each is needed')
    if read_config(args.config).model.backbone.get('init_cfg') is not None:
        raise UserError('the config has an init_cfg for its backbone; take it out to compare')
    backbone = 'model.backbone.init_cfg'
    starts = {
        'random': [f'{backbone}=None'],
        'pre-trained': [f'{backbone}.type=Pretrained', f'{backbone}.checkpoint={args.checkpoint}'],
    }
    runs: dict[str, list[dict[int, float]]] = {name: [] for name in starts}
    results = dict(
        config=args.config,
        checkpoint=args.checkpoint,
        options=args.cfg_options,
        **environment('cuda' if torch.cuda.is_available() else 'cpu'),
        runs=runs,
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for name, options in starts.items():
            work_dir = args.work_dir / f'{name}-{seed}'
            options = [*args.cfg_options, *options, f'randomness.seed={seed}']
            train(args.config, work_dir, options)
            results['metric'], points = evaluations(work_dir)
            runs[name].append(points)
            args.out.write_text(json.dumps(results, indent=1) + '\n')
    print(table(results['metric'], runs))


def train(config: str, work_dir: Path, options: list[str]) -> None:
    command = [sys.executable, str(TRAIN), config, '--work-dir', str(work_dir)]
    command += ['--cfg-options', *options]
    if subprocess.run(command).returncode:
        raise UserError(f'the training in {work_dir} failed, see above; --out has those before it')


def evaluations(work_dir: Path) -> tuple[str, dict[int, float]]:
    """The task's metric, and its value by training iteration."""
    metrics = read_curves(work_dir).metrics
    name = main_metric(metrics)
    series = metrics[name]
    return name, dict(zip(series.iterations.tolist(), series.values.tolist()))


def table(metric: str, runs: dict[str, list[dict[int, float]]]) -> str:
    """Means and standard deviations over the seeds, and when the pre-trained overtake the end
    of the others."""
    lines = [f'| iteration | {" | ".join(runs)} |', f'|{"---|" * (1 + len(runs))}']
    for iteration in runs['random'][0]:
        values = ([run[iteration] for run in same] for same in runs.values())
        cells = (f'{mean(v):.3f} ± {stdev(v) if len(v) > 1 else 0:.3f}' for v in values)
        lines.append(f'| {iteration} | {" | ".join(cells)} |')
    last = max(runs['random'][0])
    end = mean(run[last] for run in runs['random'])
    reached = [i for i in runs['random'][0] if mean(r[i] for r in runs['pre-trained']) >= end]
    when = f'by iteration {reached[0]}' if reached else 'not reached'
    seeds = len(runs['random'])
    return '\n'.join(
        [*lines, '', f'{metric}, {seeds} seeds; what random weights end with, {end:.3f}: {when}']
    )


if __name__ == '__main__':
    exit_on_user_error(main)
