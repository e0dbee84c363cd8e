#!/usr/bin/env python
"""Predict image files with a trained detector, segmentor or classifier; write for each image a
picture with the result drawn on it and the result as JSON."""

import argparse
import sys

from rich.progress import track

from mmcloformer.apis.cli import add_cfg_options, add_dtype, exit_on_user_error
from mmcloformer.apis.config import read_config
from mmcloformer.apis.predict import build_predictor, make_folders, plan_files, predict_file
from mmcloformer.errors import DataError, UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', help='image file, folder, or pattern in quotes')
    parser.add_argument('--out', required=True, help='folder to write to')
    add_cfg_options(parser)
    add_dtype(parser)
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)
    plan = plan_files(args.images, args.out, label_maps=cfg.get('default_scope') == 'mmseg')
    make_folders(plan.values())
    predict = build_predictor(cfg, args.checkpoint, args.dtype)
    failed = 0
    for path, stem in track(plan.items(), 'Predicting'):
        try:
            predict_file(predict, path).save(stem)
        except DataError as error:
            failed += 1
            print(error, file=sys.stderr)
    print(f'{len(plan) - failed} images predicted into {args.out}')
    if failed:
        raise UserError(
            f'{failed} of {len(plan)} files could not be read or predicted; they are listed above'
        )


if __name__ == '__main__':
    exit_on_user_error(main)
