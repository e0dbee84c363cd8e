#!/usr/bin/env python
"""Evaluate a checkpoint with the config it was trained with."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmcloformer.apis.cli import base_parser, exit_on_user_error
from mmcloformer.apis.runner import (
    build_runner,
    load_config,
    require_whole_checkpoint,
    write_metrics_once,
)
from mmcloformer.checks.presence import check_data
from mmcloformer.errors import UserError


def main() -> None:
    parser = base_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--show-dir', help='draw predictions into this folder')
    parser.add_argument('--out', help='dump predictions to this .pkl file')
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out must end in .pkl or .pickle, got {args.out}')
    if args.out:  # Before the evaluation, not after it.
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    require_whole_checkpoint(cfg)
    write_metrics_once(cfg)
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
    if cfg.default_scope == 'mmpretrain':
        hook.update(enable=True, interval=1)
        cfg.custom_hooks.append(dict(type='BgrToRgbHook', priority='HIGH'))
    else:
        hook.update(draw=True, interval=1)
    images = os.path.join(os.pardir, folder)  # The backend starts from the run's vis_data.
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend', img_save_dir=images)]


@HOOKS.register_module()
class BgrToRgbHook(Hook):
    """Turns images round before mmpretrain's own hook draws them: it takes BGR for RGB."""

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        data_batch['inputs'] = data_batch['inputs'].flip(1)


class DumpLabelMaps(DumpResults):
    """A segmentor's predictions without the logits, which take hundreds of megabytes an image."""

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        kept = [{k: v for k, v in sample.items() if k != 'seg_logits'} for sample in data_samples]
        super().process(data_batch, kept)


def dump_results(cfg: Config, path: str) -> DumpResults:
    if cfg.default_scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults  # Encodes masks as RLE.

        return DumpDetResults(out_file_path=path)
    if cfg.default_scope == 'mmseg':
        return DumpLabelMaps(out_file_path=path)
    return DumpResults(out_file_path=path)


if __name__ == '__main__':
    exit_on_user_error(main)
