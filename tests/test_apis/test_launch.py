import errno
import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from torch.utils.data import DataLoader

from mmcloformer.apis.cli import base_parser, exit_on_user_error
from mmcloformer.apis.runner import guard_training, load_config, write_metrics_once
from tests.conftest import ROOT


def load(name, *args):
    parser = base_parser('')
    return load_config(parser.parse_args([str(ROOT / 'configs' / f'{name}.py'), *args]))


def norm_types(node):
    children = node.values() if isinstance(node, dict) else node
    for child in children:
        if isinstance(child, (dict, list, tuple)):
            yield from norm_types(child)
    if isinstance(node, dict) and isinstance(node.get('norm_cfg'), dict):
        yield node['norm_cfg']['type']


@pytest.mark.parametrize(('has_gpu', 'expected'), [(True, 'SyncBN'), (False, 'BN')])
def test_norms_are_synchronised_on_gpus_only(monkeypatch, has_gpu, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    cfg = load('upernet_cloformer_xs_ade20k')
    assert list(norm_types(cfg.model)) == [expected, expected]
    assert cfg.sync_bn == ('torch' if has_gpu else None)


def test_mmpretrains_loaders_are_complete():
    """Its configs leave to its tools what a loader needs."""
    cfg = load('cloformer_xs_imagenet', '--cfg-options', 'val_dataloader.num_workers=0')
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].collate_fn.type == 'default_collate'
    assert cfg.train_dataloader.persistent_workers
    assert not cfg.val_dataloader.persistent_workers
    assert 'collate_fn' not in load('retinanet_cloformer_xs_coco').train_dataloader


@pytest.mark.parametrize(
    ('name', 'split', 'setting'),
    [
        ('retinanet_cloformer_xs_coco', 'train', 'persistent_workers=True'),
        ('semantic-fpn_cloformer_xs_ade20k', 'val', 'prefetch_factor=4'),
        ('cloformer_xs_imagenet', 'test', 'persistent_workers=True'),
        ('retinanet_cloformer_xs_coco', 'test', 'timeout=30'),
        ('upernet_cloformer_xs_ade20k', 'train', 'multiprocessing_context=spawn'),
    ],
)
def test_no_workers_need_no_other_setting(name, split, setting):
    loader = f'{split}_dataloader'
    options = [f'{loader}.num_workers=0', f'{loader}.{setting}']
    settings = load(name, '--cfg-options', *options)[loader]
    known = ('num_workers', 'persistent_workers', 'prefetch_factor', 'timeout')
    kept = {key: settings[key] for key in (*known, 'multiprocessing_context') if key in settings}
    assert list(DataLoader([1, 2], **kept)) == [torch.tensor([1]), torch.tensor([2])]


def test_workers_keep_their_settings():
    options = ['train_dataloader.prefetch_factor=4', 'train_dataloader.timeout=30']
    loader = load('retinanet_cloformer_xs_coco', '--cfg-options', *options).train_dataloader
    assert (loader.persistent_workers, loader.prefetch_factor, loader.timeout) == (True, 4, 30)


def test_the_work_dir_is_named_after_the_config():
    assert load('cloformer_xs_imagenet').work_dir == 'work_dirs/cloformer_xs_imagenet'
    assert load('cloformer_xs_imagenet', '--work-dir', 'here').work_dir == 'here'


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is always full')
def test_a_full_disk_is_one_message():
    """Of whatever file: a log, a curve, the name of the last checkpoint."""

    def main():
        with open('/dev/full', 'w') as file:
            file.write('epoch_1.pth')

    with pytest.raises(SystemExit, match=r'No space left on device.*--resume'):
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


@pytest.mark.parametrize(
    ('hooks', 'expected'),
    [
        ({}, dict(type='OneWriterLoggerHook')),
        (dict(default_hooks={}), dict(type='OneWriterLoggerHook')),
        (
            dict(default_hooks=dict(logger=dict(type='LoggerHook', interval=7))),
            dict(type='OneWriterLoggerHook', interval=7),
        ),
        (dict(default_hooks=dict(logger=dict(type='Other'))), dict(type='Other')),
        (dict(default_hooks=dict(logger=None)), None),
    ],
)
def test_metrics_are_written_once_whatever_hooks_the_config_has(hooks, expected):
    cfg = Config(hooks)
    write_metrics_once(cfg)
    assert cfg.default_hooks.logger == expected


@pytest.mark.parametrize(
    ('hooks', 'expected'),
    [
        ({}, dict(type='AtomicCheckpointHook')),
        (dict(checkpoint=dict(type=CheckpointHook)), dict(type='AtomicCheckpointHook')),
        (
            dict(checkpoint=dict(type='mmengine.CheckpointHook', interval=7)),
            dict(type='AtomicCheckpointHook', interval=7),
        ),
        (dict(checkpoint=dict(type='TheirCheckpointHook')), dict(type='TheirCheckpointHook')),
        (dict(checkpoint=None), None),
    ],
)
def test_only_the_hosts_own_checkpoint_hook_is_replaced(hooks, expected):
    cfg = Config(dict(default_hooks=hooks))
    guard_training(cfg)
    assert cfg.default_hooks.checkpoint == expected
    assert [hook.type for hook in cfg.custom_hooks] == [
        'FiniteLossHook',
        'ReseedHook',
        'WarmUpHook',
        'LastBatchHook',
    ]


def test_other_errors_keep_their_traceback():
    def main():
        raise OSError(errno.EIO, 'broken')

    with pytest.raises(OSError, match='broken'):
        exit_on_user_error(main)
