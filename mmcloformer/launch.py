"""What the tools share: from a command line to the host's Runner, and how they end."""

import argparse
import atexit
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .build import read_config
from .checkpoint.saving import save_whole_files
from .errors import UserError


def base_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options that mm users know from the hosts' own tools."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='launcher'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch')
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option by which fields of the config are overridden."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config fields: key=value, nested as a.b.c=value, lists as key="[a,b]"',
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the options of `base_parser` into it.

    Raises:
        ConfigError: If there is no such file.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    if not torch.cuda.is_available():
        cfg.sync_bn = None
        _replace_sync_bn(cfg.model)
        if args.launcher in ('pytorch', 'slurm'):
            _distribute_on_cpu(cfg)
    if cfg.get('default_scope') == 'mmpretrain':
        _complete_mmpretrain_loaders(cfg)
    return cfg


def guard_training(cfg: Config) -> None:
    """Have the Runner save checkpoints whole or not at all, stop at a loss that is not finite,
    and draw the same random numbers when it resumes."""
    save_whole_files()
    hooks = [dict(type='FiniteLossHook'), dict(type='ReseedHook')]
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]


def require_whole_checkpoint(cfg: Config) -> None:
    """Have the Runner refuse a checkpoint that does not fill the whole model."""
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='WholeCheckpointHook')]


def write_metrics_once(cfg: Config) -> None:
    """Have one process write a test's metrics, where the logger is the host's own."""
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    logger = hooks.setdefault('logger', ConfigDict(type='LoggerHook'))
    if logger and logger.type == 'LoggerHook':
        logger.type = 'OneWriterLoggerHook'


def build_runner(cfg: Config) -> Runner:
    """Build the Runner that the config asks for, the host's default or its own."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run a tool; print a `UserError`, or that a file cannot be read or written, as one message
    and exit with 1, without a traceback. Done, a process of several ends with all of them."""
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f'error: {error}. Make room and run this again, a training with --resume.')
        if error.filename is None:  # Not of a file: a bug, or the network.
            raise
        sys.exit(f'error: {error.strerror}: {error.filename}')
    if dist.is_initialized():
        _leave_group()


def _leave_group() -> NoReturn:
    """End this process, with all that Python does at its end but taking itself and the group
    apart: in that, and in destroying the group, threads of gloo's abort now and then."""
    with suppress(RuntimeError):  # Of one that has left already; the work is done.
        dist.barrier()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _replace_sync_bn(node: Any) -> None:
    """Turn every SyncBN into the BN with the same weights; SyncBN runs on GPUs only."""
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            _replace_sync_bn(child)


def _distribute_on_cpu(cfg: Config) -> None:
    """Join the launcher's processes by gloo; mmengine's own start takes a GPU for granted."""
    if cfg.launcher == 'slurm':
        _read_slurm(os.environ)
    dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None
    )


def _read_slurm(env: MutableMapping[str, str]) -> None:
    """Tell torch what srun said; as in mmengine, the job's first node is the master."""
    env.update(
        RANK=env['SLURM_PROCID'], WORLD_SIZE=env['SLURM_NTASKS'], LOCAL_RANK=env['SLURM_LOCALID']
    )
    env.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in env:
        nodes = ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']]
        env['MASTER_ADDR'] = subprocess.check_output(nodes, text=True).split()[0]


def _complete_mmpretrain_loaders(cfg: Config) -> None:
    """Add what mmpretrain's own tools add to every loader; its configs leave it out."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is not None:
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
