import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.checkpoint.saving import write_whole
from mmcloformer.engine import checkpoint_hook
from mmcloformer.errors import CheckpointError
from tests.toy import Toy, toy_runner

ATOMIC = dict(type='AtomicCheckpointHook')


@contextmanager
def files_up_to(size):
    """As on a full disk, no file of this process grows beyond this number of bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return {file.name for file in folder.glob('*.pth*')}


def interrupt(*_):
    raise KeyboardInterrupt


class Scores(BaseMetric):
    """Metrics that are given for every validation."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = list(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return self.scores.pop(0)


class Validated(Toy):
    def forward(self, inputs, target, mode='tensor'):
        return [dict()] if mode == 'predict' else super().forward(inputs, target, mode)


def validated_runner(work_dir, scores, *, model=None, **settings):
    data = [dict(inputs=torch.ones(4), target=torch.ones(4))]
    return toy_runner(
        work_dir,
        model=model or Validated(),
        val_dataloader=dict(
            dataset=data,
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        val_cfg=dict(),
        val_evaluator=Evaluator([Scores(*scores)]),
        **settings,
    )


def test_a_file_is_written_and_replaced(tmp_path):
    file = tmp_path / 'file.pth'
    for content in (b'one', b'another'):
        write_whole(file, content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    file = tmp_path / 'file.pth'
    file.write_bytes(b'before')
    with files_up_to(100_000), pytest.raises(OSError, match='File too large'):
        write_whole(file, bytes(3_000_000))
    assert file.read_bytes() == b'before'
    assert list(tmp_path.iterdir()) == [file]


def test_training_on_a_full_disk_keeps_the_only_checkpoint(tmp_path):
    settings = dict(model=Toy(ballast=4_000_000), checkpoint=dict(ATOMIC, max_keep_ckpts=1))
    toy_runner(tmp_path, epochs=1, **settings).train()
    with files_up_to(2_000_000), pytest.raises(CheckpointError) as error:
        toy_runner(tmp_path, epochs=3, resume=True, **settings).train()
    for words in ('epoch_2.pth', 'File too large', 'about 4.0 MB', 'MB are free', '--resume'):
        assert words in str(error.value)
    assert read_checkpoint(tmp_path / 'epoch_1.pth')['meta']['epoch'] == 1
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert names(tmp_path) == {'epoch_1.pth'}

    toy_runner(tmp_path, epochs=3, resume=True, **settings).train()
    assert names(tmp_path) == {'epoch_3.pth'}
    assert torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['meta']['iter'] == 6


@pytest.mark.parametrize('moment', ['fsync', 'rename'])
def test_an_interrupted_save_changes_nothing(tmp_path, monkeypatch, moment):
    settings = dict(checkpoint=dict(ATOMIC, max_keep_ckpts=1))
    toy_runner(tmp_path, epochs=1, **settings).train()
    with monkeypatch.context() as patch:
        if moment == 'fsync':
            patch.setattr(os, 'fsync', interrupt)
        else:
            patch.setattr(Path, 'replace', interrupt)
        with pytest.raises(KeyboardInterrupt):
            toy_runner(tmp_path, epochs=2, resume=True, **settings).train()
    assert names(tmp_path) == {'epoch_1.pth', 'epoch_2.pth.part'}
    toy_runner(tmp_path, epochs=2, resume=True, **settings).train()
    assert names(tmp_path) == {'epoch_2.pth'}


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('keep', [1, 2])
@pytest.mark.parametrize('resume', [False, True])
def test_as_many_checkpoints_stay_as_the_config_says(tmp_path, by_epoch, keep, resume):
    settings = dict(checkpoint=dict(ATOMIC, max_keep_ckpts=keep, by_epoch=by_epoch))
    if resume:
        toy_runner(tmp_path, epochs=3, **settings).train()
    toy_runner(tmp_path, epochs=5, resume=resume, **settings).train()
    # The host counts the epoch anew that it resumes by iteration.
    steps = [4, 5] if by_epoch else [11, 12] if resume else [9, 10]
    kind = 'epoch' if by_epoch else 'iter'
    assert names(tmp_path) == {f'{kind}_{step}.pth' for step in steps[-keep:]}


def test_a_smaller_number_to_keep_after_resuming(tmp_path):
    toy_runner(tmp_path, epochs=4, checkpoint=dict(ATOMIC, max_keep_ckpts=4)).train()
    settings = dict(checkpoint=dict(ATOMIC, max_keep_ckpts=2))
    toy_runner(tmp_path, epochs=5, resume=True, **settings).train()
    assert names(tmp_path) == {'epoch_4.pth', 'epoch_5.pth'}


def test_only_the_last_is_saved_without_an_interval(tmp_path):
    toy_runner(tmp_path, epochs=3, checkpoint=dict(ATOMIC, interval=-1)).train()
    assert names(tmp_path) == {'epoch_3.pth'}
    other = tmp_path / 'other'
    toy_runner(other, epochs=3, checkpoint=dict(ATOMIC, interval=2, save_last=False)).train()
    assert names(other) == {'epoch_2.pth'}


def test_another_folder(tmp_path):
    toy_runner(tmp_path / 'work', checkpoint=dict(ATOMIC, out_dir=str(tmp_path / 'out'))).train()
    saved = tmp_path / 'out' / 'work' / 'epoch_1.pth'
    assert (tmp_path / 'work' / 'last_checkpoint').read_text() == str(saved)
    assert names(saved.parent) == {'epoch_1.pth'}


@pytest.mark.parametrize('hook', ['CheckpointHook', 'AtomicCheckpointHook'])
def test_the_best_checkpoints_are_those_of_the_host(tmp_path, hook):
    scores = [dict(acc=value, loss=value) for value in (0.1, 0.5, 0.3, 0.7)]
    checkpoint = dict(type=hook, max_keep_ckpts=1, save_best=['acc', 'loss'])
    runner = validated_runner(tmp_path, scores, epochs=4, checkpoint=checkpoint)
    runner.train()
    assert names(tmp_path) == {'epoch_4.pth', 'best_acc_epoch_4.pth', 'best_loss_epoch_1.pth'}
    assert read_checkpoint(tmp_path / 'best_acc_epoch_4.pth')['meta']['epoch'] == 4


def test_a_best_checkpoint_goes_only_after_the_better_one_is_complete(tmp_path, monkeypatch):
    scores = [dict(acc=0.1), dict(acc=0.5)]
    checkpoint = dict(ATOMIC, save_best='acc', max_keep_ckpts=1)
    flush, seen = checkpoint_hook._flush, []

    def look(path):
        seen.append((path.name, names(tmp_path)))
        flush(path)

    monkeypatch.setattr(checkpoint_hook, '_flush', look)
    validated_runner(tmp_path, scores, epochs=2, checkpoint=checkpoint).train()
    present = dict(seen)['best_acc_epoch_2.pth.part']
    assert present == {'epoch_2.pth', 'best_acc_epoch_1.pth', 'best_acc_epoch_2.pth.part'}
    assert names(tmp_path) == {'epoch_2.pth', 'best_acc_epoch_2.pth'}


def test_a_file_created_anew_after_its_removal_stays(tmp_path):
    """A file is removed only if it is still the one that the host asked to remove."""
    runner = toy_runner(tmp_path, checkpoint=ATOMIC)
    runner.train()
    saver = checkpoint_hook._AtomicSaver(runner)
    backend = checkpoint_hook._RemovalRecorder(saver.outdated)
    kept, removed = tmp_path / 'kept.pth', tmp_path / 'removed.pth'
    for file in (kept, removed):
        file.write_bytes(b'old')
        backend.remove(str(file))
    (tmp_path / 'new').write_bytes(b'new')
    (tmp_path / 'new').replace(kept)
    saver.save_checkpoint(str(tmp_path), 'next.pth', save_param_scheduler=False)
    assert kept.read_bytes() == b'new'
    assert names(tmp_path) == {'epoch_1.pth', 'kept.pth', 'next.pth'}


def test_removals_of_a_failed_save_are_forgotten(tmp_path):
    settings = dict(checkpoint=dict(ATOMIC, max_keep_ckpts=1), model=Toy(ballast=4_000_000))
    runner = toy_runner(tmp_path, epochs=2, **settings)
    saved = Runner.save_checkpoint

    def fail(self, out_dir, filename, *args, **kwargs):
        if filename.startswith('epoch_2'):
            raise OSError(28, 'No space left on device')
        saved(self, out_dir, filename, *args, **kwargs)

    runner.save_checkpoint = fail.__get__(runner)
    with pytest.raises(CheckpointError, match='No space left'):
        runner.train()
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    assert not hook._saver.outdated
    assert type(hook.file_backend) is LocalBackend
    assert names(tmp_path) == {'epoch_1.pth'}


def test_folders_are_saved_and_removed_too(tmp_path):
    """As by DeepSpeed and sharded models."""
    runner = toy_runner(tmp_path, epochs=3, checkpoint=dict(ATOMIC, max_keep_ckpts=1))

    def save(out_dir, filename, *args, **kwargs):
        folder = Path(out_dir, filename)
        folder.mkdir()
        (folder / 'rank0.pth').write_bytes(b'shard')

    runner.save_checkpoint = save
    runner.train()
    assert names(tmp_path) == {'epoch_3.pth'}
    assert (tmp_path / 'epoch_3.pth' / 'rank0.pth').read_bytes() == b'shard'


def test_publishing(tmp_path):
    checkpoint = dict(ATOMIC, published_keys=['meta', 'state_dict'])
    toy_runner(tmp_path / 'whole', checkpoint=checkpoint).train()
    (published,) = names(tmp_path / 'whole') - {'epoch_1.pth'}
    assert published.startswith('epoch_1-')
    assert read_checkpoint(tmp_path / 'whole' / published).keys() == {'meta', 'state_dict'}


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    """The other ranks call the hook as well."""
    shutil.rmtree(tmp_path)
    runner = toy_runner(tmp_path, checkpoint=ATOMIC)
    saver = checkpoint_hook._AtomicSaver(runner)
    for module in ('mmengine.dist.utils', 'mmcloformer.engine.checkpoint_hook'):
        monkeypatch.setattr(f'{module}.is_main_process', lambda *_: False)
    saver.save_checkpoint(str(tmp_path), 'epoch_1.pth')
    assert names(tmp_path) == set()
