#!/usr/bin/env python
"""Examine every file of a config's data sets before training."""

import argparse
import os
import time

from mmcloformer.apis.cli import add_cfg_options, exit_on_user_error
from mmcloformer.apis.config import read_config
from mmcloformer.checks.examine import check_dataset
from mmcloformer.checks.problem import render
from mmcloformer.errors import DataError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    add_cfg_options(parser)
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count() or 1,
        help='number of worker processes (default: one per core)',
    )
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)

    start = time.perf_counter()
    findings = check_dataset(cfg, args.workers)
    samples = findings.samples
    problems, warnings = render(findings.problems), render(findings.warnings)
    total = sum(samples.values())
    splits = ', '.join(f'{split} {count}' for split, count in samples.items())
    for warning in warnings:
        print(f'warning: {warning}')
    if problems:
        print('\n'.join(problems))
        number = f'{len(problems)} problem{"s" * (len(problems) > 1)}'
        raise DataError(f'{number}, listed above, in {total} samples ({splits})')
    listed = (
        f'; {len(warnings)} warning{"s" * (len(warnings) > 1)}, listed above' if warnings else ''
    )
    seconds = time.perf_counter() - start
    print(f'all {total} samples are good ({splits}), examined in {seconds:.1f} s{listed}')


if __name__ == '__main__':
    exit_on_user_error(main)
