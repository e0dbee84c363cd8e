"""Building the host's Runner from a parsed command line."""

import argparse
import os
import subprocess
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmcv.ops import SyncBatchNorm
from mmengine.config import Config, ConfigDict
from mmengine.dist import broadcast_object_list, init_dist, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn

from ..config import SPLITS, ConfigView
from ..engine.saving import AtomicCheckpointHook
from ..errors import UserError
from ..models.deploy import require_dtype
from .config import read_config

# torch refuses them, at other values than these, in a loader without worker processes.
_WORKER_SETTINGS = dict(
    persistent_workers=False, prefetch_factor=None, multiprocessing_context=None, timeout=0
)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config, apply the options of `base_parser` to it and start its process group.

    Raises:
        ConfigError: If the file does not exist.
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
        _replace_sync_bn(cfg)
    if args.launcher != 'none':
        _start_processes(cfg)
    view = ConfigView(cfg)
    for split in SPLITS:
        if loader := view.loader(split):
            _complete_loader(loader, view.host)
    return cfg


def add_hooks(cfg: Config, *types: str, **settings: Any) -> None:
    """Add hooks of these registered types, with the same settings, to the config's own."""
    hooks = (dict(settings, type=name) for name in types)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *hooks]


def replace_default_hook(cfg: Config, name: str, replacement: type[Hook]) -> None:
    """Replace a default hook by a subclass of this package, if it is of the host's own class.

    A hook of another class stays, and so does a hook that the config turns off (None).

    Args:
        cfg: Config, changed in place.
        name: Name of the hook, such as `checkpoint`.
        replacement: Registered subclass of the host's class.
    """
    host = replacement.__base__
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = ConfigDict()
    # As in mmengine's Runner.register_default_hooks.
    settings = dict(interval=1) if host is CheckpointHook else {}
    hook = cfg.default_hooks.setdefault(name, ConfigDict(settings, type=host))
    if isinstance(hook, dict) and ConfigView(cfg).resolve(hook, 'HOOKS') is host:
        hook['type'] = replacement.__name__


def guard_training(cfg: Config) -> None:
    """Add the hooks of tools/train.py: checkpoints that are never half written, an end at a loss
    that is not finite, the same random numbers and validations after resuming, and warnings of a
    warm-up longer than the run.
    """
    replace_default_hook(cfg, 'checkpoint', AtomicCheckpointHook)
    add_hooks(cfg, 'FiniteLossHook', 'ReseedHook', 'MissedValidationHook', 'WarmUpHook')


def use_dtype(cfg: Config, dtype: str) -> None:
    """Test with the backbone in `'float32'`, `'bfloat16'` or `'float16'`.

    Raises:
        UserError: If the device has no units for it.
    """
    require_dtype(dtype)
    if dtype != 'float32':
        add_hooks(cfg, 'HalfPrecisionHook', dtype=dtype)


def check_once(check: Callable[[], None]) -> None:
    """Run a check in the main process only, and raise its error in all processes.

    Args:
        check: A function that may raise a `UserError`.
    """
    error: list[UserError | None] = [None]
    if is_main_process():
        try:
            check()
        except UserError as found:
            error = [found]
    broadcast_object_list(error)
    if error[0] is not None:
        raise error[0]


def build_runner(cfg: Config) -> Runner:
    """Build the Runner of the class that the config names, by default mmengine's."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _replace_sync_bn(cfg: Config) -> None:
    """Replace every SyncBN, which runs on GPUs only, by BN, which has the same weights."""
    for node in ConfigView(cfg).parts(nn.SyncBatchNorm, SyncBatchNorm):
        node.value['type'] = 'BN'


def _start_processes(cfg: Config) -> None:
    """Start the process group, which the Runner would start later; on CPUs with gloo.

    mmengine's own start-up assumes a GPU, and a FlexibleRunner's strategy has its own.
    """
    if torch.cuda.is_available() or cfg.launcher == 'mpi':
        if 'strategy' not in cfg:
            env = cfg.get('env_cfg') or {}
            set_multi_processing(**env.get('mp_cfg', {}), distributed=True)
            init_dist(cfg.launcher, **env.get('dist_cfg', {}))
        return
    if cfg.launcher == 'slurm':
        _read_slurm(os.environ)
    dist.init_process_group('gloo')
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
            device_ids=None,
        )


def _read_slurm(env: MutableMapping[str, str]) -> None:
    """Set torch's variables from those of srun; as in mmengine, the first node is the master."""
    env.update(
        RANK=env['SLURM_PROCID'], WORLD_SIZE=env['SLURM_NTASKS'], LOCAL_RANK=env['SLURM_LOCALID']
    )
    env.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in env:
        nodes = ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']]
        env['MASTER_ADDR'] = subprocess.check_output(nodes, text=True).split()[0]


def _complete_loader(loader: ConfigDict, host: str | None) -> None:
    """Add what mmpretrain's configs leave to its own tools, and make `num_workers=0` valid."""
    workers = loader.get('num_workers', 0)
    if host == 'mmpretrain':
        loader.setdefault('collate_fn', dict(type='default_collate'))
        loader.setdefault('pin_memory', torch.cuda.is_available())
        loader.setdefault('persistent_workers', workers > 0)
    if workers == 0:
        loader.update({k: v for k, v in _WORKER_SETTINGS.items() if k in loader})
