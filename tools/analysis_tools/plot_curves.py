#!/usr/bin/env python
"""Draw loss, learning rate and evaluation metrics of a training, over all its resumed runs."""

import argparse
import json
from pathlib import Path

from mmcloformer.analysis.curves import plot_curves, read_curves
from mmcloformer.apis.cli import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', help='the work directory of the training')
    parser.add_argument('--out', help='image file to write (default: WORK_DIR/curves.png)')
    parser.add_argument('--json', help='JSON file to write all points to')
    args = parser.parse_args()
    print(plot_curves(args.work_dir, args.out))
    if args.json:
        training, metrics = read_curves(args.work_dir)
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps({**training, **metrics}, indent=1) + '\n')
        print(args.json)


if __name__ == '__main__':
    exit_on_user_error(main)
