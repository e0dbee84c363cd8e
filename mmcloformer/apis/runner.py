"""From a parsed command line to the host's Runner."""

import argparse
import os
import subprocess
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoint.saving import save_whole_files
from .config import read_config


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
