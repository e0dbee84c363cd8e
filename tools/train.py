#!/usr/bin/env python
"""Train a detector, segmentor or classifier; the config's `default_scope` says which."""

from mmengine.device import get_device

from mmcloformer.apis.cli import base_parser, exit_on_user_error
from mmcloformer.apis.runner import (
    build_runner,
    guard_resuming,
    guard_training,
    load_config,
    match_checkpoint_keys,
)
from mmcloformer.checks.crashes import explain_crashes
from mmcloformer.checks.hint import suggest_data_check
from mmcloformer.checks.presence import check_data
from mmcloformer.compat.reseeding import reseed_augmentation
from mmcloformer.engine.resuming import resume_from_last_whole
from mmcloformer.errors import UserError


def main() -> None:
    parser = base_parser(__doc__)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a path, from the last one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over auto_scale_lr.base_batch_size',
    )
    args = parser.parse_args()
    cfg = load_config(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise UserError('mixed precision (AmpOptimWrapper, --amp) needs a GPU; train without it')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    note = None
    if args.resume not in (None, 'auto'):
        cfg.resume, cfg.load_from = True, args.resume
    elif args.resume or (cfg.get('resume') and cfg.get('load_from') is None):
        note = resume_from_last_whole(cfg)
    match_checkpoint_keys(cfg)
    if cfg.get('resume'):
        guard_resuming(cfg)
    check_data(cfg, ('train', 'val'))
    guard_training(cfg)
    runner = build_runner(cfg)
    reseed_augmentation(runner)
    if note:
        runner.logger.warning(note)
    with suggest_data_check(args.config), explain_crashes(cfg):
        runner.train()


if __name__ == '__main__':
    exit_on_user_error(main)
