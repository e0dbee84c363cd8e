#!/usr/bin/env python
"""Evaluate a checkpoint with the config it was trained with."""

from pathlib import Path

from mmcloformer.apis.cli import add_dtype, base_parser, exit_on_user_error
from mmcloformer.apis.runner import (
    add_hooks,
    build_runner,
    check_once,
    load_config,
    replace_default_hook,
    use_dtype,
)
from mmcloformer.apis.tta import augment_test
from mmcloformer.checks.presence import check_data
from mmcloformer.config import ConfigView
from mmcloformer.engine.pictures import draw_predictions
from mmcloformer.engine.testing import OneWriterLoggerHook, build_dump_metric
from mmcloformer.errors import UserError


def main() -> None:
    parser = base_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--show-dir', help='draw predictions into this folder')
    parser.add_argument('--out', help='dump predictions to this .pkl file')
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation, by default with mirror images'
    )
    add_dtype(parser)
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out must end in .pkl or .pickle, got {args.out}')
    if args.out:  # Fail before the evaluation, not after it.
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    add_hooks(cfg, 'WrapperKeysHook', 'WholeCheckpointHook')
    replace_default_hook(cfg, 'logger', OneWriterLoggerHook)
    if args.show_dir:
        draw_predictions(cfg, args.show_dir)
    check_once(lambda: check_data(cfg, ('test',)))
    if args.tta:
        augment_test(cfg)
    use_dtype(cfg, args.dtype)
    runner = build_runner(cfg)
    if args.out:
        dump = build_dump_metric(ConfigView(cfg).host, args.out)
        runner.test_evaluator.metrics.append(dump)
    runner.test()
    if args.out and dump.results:  # mmdet's MultiDatasetsEvaluator asks one metric per data set.
        dump.evaluate(len(runner.test_dataloader.dataset))


if __name__ == '__main__':
    exit_on_user_error(main)
