#!/usr/bin/env python
"""Train a detector, segmentor or classifier; the config's `default_scope` says which."""

from mmengine.device import get_device

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
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a path, from the latest in the work dir',
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
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('resume'):
        require_whole_checkpoint(cfg)
    check_data(cfg, ('train', 'val'))
    build_runner(cfg).train()


if __name__ == '__main__':
    exit_on_user_error(main)
