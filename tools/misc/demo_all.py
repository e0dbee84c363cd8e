#!/usr/bin/env python
"""Train, test, draw and plot demo configs one after another; print one table of the results."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from mmcloformer.analysis.curves import MAIN_METRICS, main_metric
from mmcloformer.errors import UserError

TOOLS = Path(__file__).parents[1]


class Row(NamedTuple):
    task: str
    config: str
    metric: str
    value: str
    seconds: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', type=Path, help='default: all in configs/demo')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo-all'))
    args = parser.parse_args()
    configs = args.configs or sorted((TOOLS.parent / 'configs/demo').glob('*.py'))
    rows = [run_config(config, args.work_dir / config.stem) for config in configs]
    print('\n' + table([Row(*Row._fields), *rows]))
    if any(row.task == 'FAILED' for row in rows):
        sys.exit(1)


def run_config(config: Path, work_dir: Path) -> Row:
    """Run all tools on one config; a failure is a row as well."""
    start = time.monotonic()
    try:
        run('train.py', config, '--work-dir', work_dir)
        checkpoint = (work_dir / 'last_checkpoint').read_text()
        run('test.py', config, checkpoint, '--work-dir', work_dir, '--show-dir', 'pictures')
        run('analysis_tools/plot_curves.py', work_dir)
        metrics = json.loads(max(work_dir.glob('*/*.json')).read_text())
        metric = main_metric(metrics)
        task, value = MAIN_METRICS.get(metric, 'other'), f'{metrics[metric]:.3f}'
    except subprocess.CalledProcessError as error:
        task, metric, value = 'FAILED', Path(error.cmd[1]).name, f'exit {error.returncode}'
    except (OSError, ValueError, UserError) as error:
        task, metric, value = 'FAILED', 'results', str(error)
    return Row(task, config.stem, metric, value, f'{time.monotonic() - start:.0f}')


def run(tool: str, *args: object) -> None:
    subprocess.run([sys.executable, str(TOOLS / tool), *map(str, args)], check=True)


def table(rows: list[Row]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


if __name__ == '__main__':
    main()
