"""Building the host's Runner from a parsed command line."""

import argparse
import os
import subprocess
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook, Hook, LoggerHook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..models.deploy import require_dtype
from .config import read_config

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# torch refuses them, at other values than these, in a loader without worker processes.
_WORKER_SETTINGS = dict(
    persistent_workers=False, prefetch_factor=None, multiprocessing_context=None, timeout=0
)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the options of `base_parser` to it.

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
        _replace_sync_bn(cfg.model)
        if args.launcher in ('pytorch', 'slurm'):
            _distribute_on_cpu(cfg)
    if cfg.get('default_scope') == 'mmpretrain':
        _complete_mmpretrain_loaders(cfg)
    _fit_loaders_without_workers(cfg)
    return cfg


def guard_training(cfg: Config) -> None:
    """Add the hooks of tools/train.py: checkpoints that are never half written, an end at a loss
    that is not finite, the same random numbers after resuming, and warnings of a warm-up longer
    than the run and of a last batch too small for BatchNorm.

    A `CheckpointHook` of another class than the host's is left as it is.
    """
    _replace_default_hook(cfg, 'checkpoint', CheckpointHook, 'AtomicCheckpointHook')
    _add_hooks(cfg, 'FiniteLossHook', 'ReseedHook', 'WarmUpHook', 'LastBatchHook')


def match_checkpoint_keys(cfg: Config) -> None:
    """Load checkpoints whose keys differ from the model's only by `module` or `_orig_mod`."""
    _add_hooks(cfg, 'WrapperKeysHook')


def require_whole_checkpoint(cfg: Config) -> None:
    """Make the Runner refuse a checkpoint that does not fill the whole model."""
    _add_hooks(cfg, 'WholeCheckpointHook')


def guard_resuming(cfg: Config) -> None:
    """Make the Runner refuse to resume from weights alone or from those of another model.

    It also warns about fields of the config that resuming overrides, and tells if a run is
    finished.
    """
    require_whole_checkpoint(cfg)
    _add_hooks(cfg, 'ResumeHook', 'ScheduleStateHook')


def use_dtype(cfg: Config, dtype: str) -> None:
    """Test with the backbone in `'float32'`, `'bfloat16'` or `'float16'`.

    Raises:
        UserError: If the device has no units for it.
    """
    require_dtype(dtype)
    if dtype != 'float32':
        hook = dict(type='HalfPrecisionHook', dtype=dtype)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def write_metrics_once(cfg: Config) -> None:
    """Let only the main process write a test's metrics, if the logger hook is the host's own."""
    _replace_default_hook(cfg, 'logger', LoggerHook, 'OneWriterLoggerHook')


def _add_hooks(cfg: Config, *types: str) -> None:
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *(dict(type=name) for name in types)]


def _replace_default_hook(cfg: Config, name: str, host: type[Hook], replacement: str) -> None:
    """Replace the type of a hook that is the host's, explicitly or by default."""
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = ConfigDict()
    hook = cfg.default_hooks.setdefault(name, ConfigDict(type=host.__name__))
    if isinstance(hook, dict) and hook.get('type') in (
        host,
        host.__name__,
        f'mmengine.{host.__name__}',
    ):
        hook['type'] = replacement


def build_runner(cfg: Config) -> Runner:
    """Build the Runner of the class that the config names, by default mmengine's."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _replace_sync_bn(node: Any) -> None:
    """Replace every SyncBN, which runs on GPUs only, by BN, which has the same weights."""
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            _replace_sync_bn(child)


def _distribute_on_cpu(cfg: Config) -> None:
    """Start the process group with gloo; mmengine's own start-up assumes a GPU."""
    if cfg.launcher == 'slurm':
        _read_slurm(os.environ)
    dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None
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


def _complete_mmpretrain_loaders(cfg: Config) -> None:
    """Add the settings of loaders that mmpretrain's configs leave to its own tools."""
    for name in _LOADERS:
        loader = cfg.get(name)
        if loader is not None:
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)


def _fit_loaders_without_workers(cfg: Config) -> None:
    """Turn off the settings of worker processes in loaders with `num_workers=0`."""
    for name in _LOADERS:
        loader = cfg.get(name)
        if loader is not None and loader.get('num_workers', 0) == 0:
            loader.update({k: v for k, v in _WORKER_SETTINGS.items() if k in loader})
