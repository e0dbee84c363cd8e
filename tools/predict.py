#!/usr/bin/env python
"""Predict image files with a trained detector, segmentor or classifier; write for each image a
picture with the result drawn on it and the result as JSON."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from rich.progress import track

from mmcloformer.apis.cli import add_cfg_options, add_dtype, exit_on_user_error
from mmcloformer.apis.config import read_config
from mmcloformer.apis.files import plan_files, require_writable
from mmcloformer.apis.predict import (
    ImageReader,
    NotAnImageError,
    Prediction,
    Predictor,
    predict_source,
)
from mmcloformer.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'images', nargs='+', help='image or video files, folders, URLs, or patterns in quotes'
    )
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--score-thr',
        type=float,
        help='leave out results with lower scores (default: JSON files have all results of a '
        'detector, and pictures those above default_hooks.visualization.score_thr)',
    )
    parser.add_argument('--classes', nargs='+', default=(), help='names of the classes to predict')
    parser.add_argument('--no-pictures', action='store_true', help='write no pictures')
    add_cfg_options(parser)
    add_dtype(parser)
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)
    reader = ImageReader(cfg)
    endings = ['.json', *([] if args.no_pictures else ['.png'])]
    endings += ['_labels.png'] if reader.host == 'mmseg' else []
    sources = plan_files(args.images, args.out, endings, reader.reads)
    require_writable(args.out)
    predict = Predictor(
        cfg,
        args.checkpoint,
        args.dtype,
        score_thr=args.score_thr,
        classes=args.classes,
        pictures=not args.no_pictures,
        reader=reader,
    )
    failed = written = 0
    others: Counter[str] = Counter()
    for source in track(sources, 'Predicting'):
        for stem, outcome in predict_source(predict, source):
            if isinstance(outcome, Prediction):
                outcome.save(stem)
                written += 1
            elif isinstance(outcome, NotAnImageError) and not source.given:
                others[Path(source.path).suffix or 'without suffix'] += 1
            else:
                print(outcome, file=sys.stderr)
                failed += 1
    print(f'{written} images predicted into {args.out}')
    if others:
        kinds = ', '.join(f'{count} {suffix}' for suffix, count in others.most_common())
        print(f'{others.total()} files are left out, as they are no images ({kinds})')
    if failed:
        raise UserError(f'{failed} files could not be read or predicted; they are listed above')
    if not written:
        raise UserError(f'found no image in {", ".join(args.images)}')


if __name__ == '__main__':
    exit_on_user_error(main)
