#!/usr/bin/env python
"""Train a detector, segmentor or classifier; the config's `default_scope` says which."""

from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper

from mmcloformer.apis.cli import base_parser, exit_on_user_error
from mmcloformer.apis.runner import (
    add_hooks,
    build_runner,
    check_once,
    guard_training,
    load_config,
)
from mmcloformer.checks.crashes import explain_crashes
from mmcloformer.checks.presence import check_data
from mmcloformer.compat.seeded_batches import seed_batches
from mmcloformer.config import ConfigView
from mmcloformer.engine.resuming import resume_from_last_whole
from mmcloformer.errors import UserError

_NEEDED = ('train_dataloader', 'train_cfg', 'optim_wrapper')


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
    lacks = [name for name in _NEEDED if cfg.get(name) is None]
    if lacks and 'runner_type' not in cfg:
        raise UserError(f'{args.config} is no config of a training: it has no {", ".join(lacks)}')
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    wrapper = ConfigView(cfg).entry(cfg.optim_wrapper, 'optim_wrapper', 'OPTIM_WRAPPERS')
    if wrapper.is_a(AmpOptimWrapper) and get_device() == 'cpu':
        raise UserError('mixed precision (AmpOptimWrapper, --amp) needs a GPU; train without it')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    note = None
    if args.resume not in (None, 'auto'):
        cfg.resume, cfg.load_from = True, args.resume
    elif args.resume or (cfg.get('resume') and cfg.get('load_from') is None):
        note = resume_from_last_whole(cfg)
    add_hooks(cfg, 'WrapperKeysHook')
    if cfg.get('resume'):
        add_hooks(cfg, 'WholeCheckpointHook', 'ResumeHook')
    check_once(lambda: check_data(cfg, ('train', 'val')))
    guard_training(cfg)
    runner = build_runner(cfg)
    seed_batches(runner)
    if note:
        runner.logger.warning(note)
    with explain_crashes(cfg, args.config):
        runner.train()


if __name__ == '__main__':
    exit_on_user_error(main)
