import os
import random

import pytest
import torch
from mmengine.config import Config

from mmcloformer.engine.resuming import resume_from_last_whole

LAST = 'epoch_3.pth'
WEIGHTS = torch.randn(1000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def work_dir(tmp_path):
    """Three checkpoints of a run and its best, named and written as the host does."""
    for time, name in enumerate(('epoch_1.pth', 'epoch_2.pth', 'best_AP_epoch_2.pth', LAST)):
        torch.save(dict(state_dict=dict(weight=WEIGHTS)), tmp_path / name)
        os.utime(tmp_path / name, (time, time))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / LAST))
    return tmp_path


def resume(work_dir, **fields):
    cfg = Config(dict(work_dir=str(work_dir), **fields))
    return cfg, resume_from_last_whole(cfg)


def test_the_named_one_is_taken_silently(work_dir):
    cfg, note = resume(work_dir, load_from='pretrained.pth')
    assert (cfg.resume, cfg.load_from, note) == (True, str(work_dir / LAST), None)


def test_an_older_one_is_taken_if_it_is_named(work_dir):
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    assert resume(work_dir)[0].load_from == str(work_dir / 'epoch_1.pth')


def test_cut_short_or_changed_anywhere_it_is_not_taken(work_dir):
    last = work_dir / LAST
    whole = last.read_bytes()
    begin = whole.index(WEIGHTS.numpy().tobytes())
    rng = random.Random(0)
    damages = [whole[: rng.randrange(len(whole))] for _ in range(30)]
    damages += [b'', whole[:-1], bytes(len(whole)), whole[: len(whole) // 2] + bytes(len(whole))]
    for place in rng.choices(range(begin, begin + 4000), k=30):
        damages.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for damaged in damages:
        last.write_bytes(damaged)
        cfg, note = resume(work_dir)
        assert (cfg.resume, cfg.load_from) == (True, str(work_dir / 'epoch_2.pth'))
        assert f'{LAST} is cut short or damaged: resuming from {cfg.load_from}' in note
        assert '\n' not in note


def test_damaged_headers_are_damage_too(work_dir):
    """Whatever a reader of zip archives makes of them."""
    last = work_dir / LAST
    whole = last.read_bytes()
    for place in range(whole.rindex(b'PK\x01\x02'), len(whole)):
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert resume(work_dir)[0].resume


def test_two_damaged_ones_are_passed_over(work_dir):
    for name in (LAST, 'epoch_2.pth'):
        (work_dir / name).write_bytes(b'half')
    assert resume(work_dir)[0].load_from == str(work_dir / 'epoch_1.pth')


@pytest.mark.parametrize('written', [None, ''])
def test_the_latest_is_found_where_last_checkpoint_names_none(work_dir, written):
    """Killed after a checkpoint was saved and before its name was."""
    pointer = work_dir / 'last_checkpoint'
    pointer.unlink() if written is None else pointer.write_text(written)
    cfg, note = resume(work_dir)
    assert (cfg.resume, cfg.load_from) == (True, str(work_dir / LAST))
    assert 'no last_checkpoint' in note


def test_a_work_dir_that_was_moved(work_dir, tmp_path_factory):
    moved = work_dir.rename(tmp_path_factory.mktemp('elsewhere') / 'run')
    cfg, note = resume(moved)
    assert (cfg.resume, cfg.load_from) == (True, str(moved / LAST))
    assert f'{work_dir / LAST} is gone' in note


def test_checkpoints_kept_in_another_folder(work_dir, tmp_path_factory):
    """As with `default_hooks.checkpoint.out_dir`."""
    other = tmp_path_factory.mktemp('work')
    (work_dir / 'last_checkpoint').rename(other / 'last_checkpoint')
    (work_dir / LAST).unlink()
    assert resume(other)[0].load_from == str(work_dir / 'epoch_2.pth')


@pytest.mark.parametrize('damaged', [False, True])
def test_without_a_whole_one_training_starts_as_the_config_says(tmp_path, damaged):
    if damaged:
        (tmp_path / 'epoch_1.pth').write_bytes(b'half')
    cfg, note = resume(tmp_path, load_from='pretrained.pth', resume=True)
    assert (cfg.resume, cfg.load_from) == (False, 'pretrained.pth')
    assert 'training starts from the beginning' in note
    assert ('none of 1 checkpoints is complete' in note) == damaged


def test_what_only_the_host_can_judge_is_left_to_it(work_dir):
    """Remote files, and the folders in which DeepSpeed and FSDP save."""
    (work_dir / 'sharded').mkdir()
    for named in ('s3://bucket/epoch_3.pth', str(work_dir / 'sharded')):
        (work_dir / 'last_checkpoint').write_text(named)
        cfg, note = resume(work_dir)
        assert (cfg.load_from, note) == (named, None)


def test_names_that_the_config_gives_them(tmp_path):
    for time, name in enumerate(('ckpt_1.pth', 'ckpt_2.pth')):
        torch.save(dict(state_dict=dict(weight=WEIGHTS)), tmp_path / name)
        os.utime(tmp_path / name, (time, time))
    (tmp_path / 'ckpt_2.pth').write_bytes(b'PK')
    (tmp_path / 'last_checkpoint').write_bytes(b'\xff\xfe')
    hooks = dict(checkpoint=dict(filename_tmpl='ckpt_{}.pth'))
    cfg, _ = resume(tmp_path, default_hooks=hooks)
    assert cfg.load_from == str(tmp_path / 'ckpt_1.pth')
