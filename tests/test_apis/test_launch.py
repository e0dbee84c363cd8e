import errno
import subprocess
import sys

import mmcv.ops
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.registry import HOOKS
from torch import nn
from torch.utils.data import DataLoader

from mmcloformer.apis.cli import base_parser, exit_on_user_error
from mmcloformer.apis.runner import (
    _replace_sync_bn,
    _start_processes,
    check_once,
    guard_training,
    load_config,
    replace_default_hook,
)
from mmcloformer.config import walk
from mmcloformer.errors import CheckpointError, DataError, UserError
from tests.conftest import ROOT


def load(name, *args):
    parser = base_parser('')
    return load_config(parser.parse_args([str(ROOT / 'configs' / f'{name}.py'), *args]))


def norm_types(cfg):
    return [node.value['type'] for node in walk(cfg.model) if node.field.endswith('norm_cfg')]


@pytest.mark.parametrize(('has_gpu', 'expected'), [(True, 'SyncBN'), (False, 'BN')])
def test_norms_are_synchronised_on_gpus_only(monkeypatch, has_gpu, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    cfg = load('upernet_cloformer_xs_ade20k')
    assert norm_types(cfg) == [expected, expected]
    assert cfg.sync_bn == ('torch' if has_gpu else None)


@pytest.mark.parametrize('kind', ['MMSyncBN', nn.SyncBatchNorm, mmcv.ops.SyncBatchNorm], ids=str)
@pytest.mark.parametrize('host', ['upernet_cloformer_xs_ade20k', 'retinanet_cloformer_xs_coco'])
def test_every_form_of_a_synchronised_norm(kind, host):
    cfg = Config.fromfile(ROOT / 'configs' / f'{host}.py')
    cfg.model.backbone['norm_cfg'] = dict(type=kind, requires_grad=True)
    _replace_sync_bn(cfg)
    assert cfg.model.backbone.norm_cfg == dict(type='BN', requires_grad=True)
    for other in ('GN', nn.BatchNorm2d):
        cfg.model.backbone.norm_cfg.type = other
        _replace_sync_bn(cfg)
        assert cfg.model.backbone.norm_cfg.type == other


def test_mmpretrains_loaders_are_complete():
    """Its configs leave to its tools what a loader needs."""
    cfg = load('cloformer_xs_imagenet', '--cfg-options', 'val_dataloader.num_workers=0')
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].collate_fn.type == 'default_collate'
    assert cfg.train_dataloader.persistent_workers
    assert not cfg.val_dataloader.persistent_workers
    assert 'collate_fn' not in load('retinanet_cloformer_xs_coco').train_dataloader


@pytest.mark.parametrize(
    ('name', 'setting'),
    [
        ('retinanet_cloformer_xs_coco', 'persistent_workers=True'),
        ('semantic-fpn_cloformer_xs_ade20k', 'prefetch_factor=4'),
        ('cloformer_xs_imagenet', 'timeout=30'),
        ('upernet_cloformer_xs_ade20k', 'multiprocessing_context=spawn'),
    ],
)
def test_settings_of_workers_are_for_loaders_with_workers(name, setting):
    options = [f'{split}_dataloader.{setting}' for split in ('train', 'val')]
    cfg = load(name, '--cfg-options', *options, 'val_dataloader.num_workers=0')
    key, _, value = setting.partition('=')
    assert str(cfg.train_dataloader[key]) == value
    known = ('num_workers', 'persistent_workers', 'prefetch_factor', 'timeout')
    kept = {k: v for k, v in cfg.val_dataloader.items() if k in (*known, 'multiprocessing_context')}
    assert list(DataLoader([1, 2], **kept)) == [torch.tensor([1]), torch.tensor([2])]


@pytest.mark.parametrize(
    ('settings', 'found'),
    [
        ({}, dict(find_unused_parameters=False, broadcast_buffers=False)),
        (dict(find_unused_parameters=True), dict(find_unused_parameters=True)),
        (dict(model_wrapper_cfg=dict(static_graph=True)), dict(static_graph=True)),
    ],
)
def test_the_config_says_how_models_are_wrapped_on_cpus(monkeypatch, settings, found):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend: None)
    cfg = Config(dict(settings, launcher='pytorch'))
    _start_processes(cfg)
    assert found.items() <= dict(cfg.model_wrapper_cfg).items()
    assert cfg.model_wrapper_cfg.get('device_ids') is None


def test_the_work_dir_is_named_after_the_config():
    assert load('cloformer_xs_imagenet').work_dir == 'work_dirs/cloformer_xs_imagenet'
    assert load('cloformer_xs_imagenet', '--work-dir', 'here').work_dir == 'here'


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (OSError(errno.ENOSPC, 'No space left on device'), 'No space left on device.*--resume'),
        (PermissionError(errno.EACCES, 'Permission denied', 'a.log'), 'denied: a.log'),
        (UserError('what to do'), 'error: what to do'),
        (OSError(errno.EIO, 'broken'), None),
    ],
)
def test_errors_of_a_tool(error, said):
    """Those of users are one message, others keep their traceback."""

    def main():
        raise error

    with pytest.raises(SystemExit if said else OSError, match=said):
        exit_on_user_error(main)


GROUPED = """
import atexit, sys, threading, time
import torch.distributed as dist
from mmcloformer.apis.cli import exit_on_user_error

def main():
    dist.init_process_group('gloo', init_method=f'file://{sys.argv[1]}', rank=0, world_size=1)
    atexit.register(print, 'at exit')
    threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()
    print('main')

exit_on_user_error(main)
print('torn apart')
"""


def test_a_process_of_several_loses_nothing_at_its_end(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', GROUPED, tmp_path / 'group'], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split('\n') == ['main', 'thread', 'at exit', '']


class OwnHook(CheckpointHook):
    pass


@pytest.mark.parametrize(
    ('name', 'host', 'replacement', 'settings'),
    [
        # As of mmengine's Runner; the class by itself saves nothing before the end.
        ('checkpoint', CheckpointHook, 'AtomicCheckpointHook', dict(interval=1)),
        ('logger', LoggerHook, 'OneWriterLoggerHook', {}),
    ],
)
def test_only_the_hosts_own_hook_is_replaced(name, host, replacement, settings):
    def replaced(hooks):
        cfg = Config(dict(default_scope='mmdet', default_hooks=hooks))
        replace_default_hook(cfg, name, HOOKS.get(replacement))
        return cfg.default_hooks[name]

    default = dict(type=replacement, **settings)
    for hooks in (None, {}, {'timer': None}):
        assert replaced(hooks) == default
    names = (host, host.__name__, f'mmengine.{host.__name__}')
    for kind in (*names, f'mmengine.hooks.{host.__name__}'):
        hook = replaced({name: dict(type=kind, interval=7)})
        assert hook == dict(type=replacement, interval=7), kind
    for hook in (None, dict(type=OwnHook), dict(type='EMAHook'), OwnHook()):
        assert replaced({name: hook}) == hook


@pytest.mark.parametrize('hooks', [None, {}, dict(checkpoint=None)])
def test_guards_fit_any_default_hooks(hooks):
    cfg = Config(dict(default_hooks=hooks, custom_hooks=None))
    guard_training(cfg)
    assert {'FiniteLossHook', 'ReseedHook'} <= {hook.type for hook in cfg.custom_hooks}


@pytest.mark.parametrize('kind', [DataError, CheckpointError])
def test_a_check_raises_its_own_error(kind):
    def check():
        raise kind('what to do')

    with pytest.raises(kind, match='what to do'):
        check_once(check)
    check_once(lambda: None)
