#!/usr/bin/env python
"""Predict image files with a trained detector, segmentor or classifier: for each a picture with
the result drawn in and the result as JSON."""

import argparse
import sys

from rich.progress import track

from mmcloformer.errors import UserError
from mmcloformer.launch import add_cfg_options, exit_on_user_error, load_config
from mmcloformer.predict import build_predictor, image_problem, plan_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', help='image file, folder, or pattern in quotes')
    parser.add_argument('--out', required=True, help='folder to write to')
    add_cfg_options(parser)
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)
    args = parser.parse_args()
    plan = plan_files(args.images, args.out)
    predict = build_predictor(load_config(args), args.checkpoint)
    unread = 0
    for path, stem in track(plan.items(), 'Predicting'):
        problem = image_problem(path)
        if problem:
            unread += 1
            print(f'{path} {problem}', file=sys.stderr)
        else:
            predict(path).save(stem)
    print(f'{len(plan) - unread} images predicted into {args.out}')
    if unread:
        raise UserError(f'{unread} of {len(plan)} files could not be read; they are listed above')


if __name__ == '__main__':
    exit_on_user_error(main)
