#!/usr/bin/env python
"""Evaluate a checkpoint with the config it was trained with."""

import os

from mmengine.config import Config
from mmengine.evaluator import DumpResults

from mmcloformer.datasets.presence import check_data
from mmcloformer.errors import UserError
from mmcloformer.launch import (
    base_parser,
    build_runner,
    exit_on_user_error,
    load_config,
    require_whole_checkpoint,
)


def main() -> None:
    parser = base_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--show-dir', help='draw predictions into this folder')
    parser.add_argument('--out', help='dump predictions to this .pkl file')
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out must end in .pkl or .pickle, got {args.out}')
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    require_whole_checkpoint(cfg)
    if args.show_dir:
        draw_into(cfg, args.show_dir)
    check_data(cfg, ('test',))
    runner = build_runner(cfg)
    if args.out:
        runner.test_evaluator.metrics.append(dump_results(cfg, args.out))
    runner.test()


def draw_into(cfg: Config, folder: str) -> None:
    """Turn on the host's own visualization hook, for every image of the test.

    mmdet puts a relative folder into the folder of the run; so do the others here.
    """
    hook = cfg.default_hooks.visualization
    if cfg.default_scope == 'mmdet':
        hook.update(draw=True, test_out_dir=folder)
        return
    hook.update(
        dict(enable=True, interval=1) if cfg.default_scope == 'mmpretrain' else dict(draw=True)
    )
    images = os.path.join(os.pardir, folder)  # The backend starts from the run's vis_data.
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend', img_save_dir=images)]


def dump_results(cfg: Config, path: str) -> DumpResults:
    if cfg.default_scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults  # Encodes masks as RLE.

        return DumpDetResults(out_file_path=path)
    return DumpResults(out_file_path=path)


if __name__ == '__main__':
    exit_on_user_error(main)
