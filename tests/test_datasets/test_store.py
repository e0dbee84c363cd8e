import json
import shutil
from pathlib import Path

import pytest
from PIL.Image import Image

from mmcloformer.datasets import store
from mmcloformer.datasets.store import MARKER, write_shapes
from mmcloformer.errors import DataError

TINY = {'num_train': 1, 'num_val': 1, 'size': 64}


def snapshot(folder):
    """Name to (content, time of writing) of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob('*')
        if path.is_file()
    }


def contents(folder):
    return {name: content for name, (content, _) in snapshot(folder).items()}


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    """What an undisturbed call writes."""
    folder = tmp_path_factory.mktemp('clean')
    write_shapes(folder, **TINY)
    return contents(folder)


def test_writes_every_layout_once_and_counts_its_objects(tmp_path):
    root = tmp_path / 'new' / 'shapes'
    report = write_shapes(root, **TINY)
    assert report.written == ('coco', 'ade20k', 'imagenet')
    assert {path.name for path in root.iterdir()} == {MARKER, *report.written}
    for split in ('train', 'val'):
        labels = json.loads((root / f'coco/annotations/instances_{split}2017.json').read_text())
        assert sum(report.counts[split].values()) == len(labels['annotations'])
    before = snapshot(root)
    again = write_shapes(root, **TINY)
    assert again.written == ()
    assert again.counts == report.counts
    assert snapshot(root) == before


def test_missing_layouts_join_the_others_also_through_a_link(tmp_path, clean):
    disk, link = tmp_path / 'disk', tmp_path / 'link'
    disk.mkdir()
    link.symlink_to(disk)
    write_shapes(link, ['coco'], **TINY)
    before = snapshot(disk / 'coco')
    assert write_shapes(link, ['coco', 'imagenet'], **TINY).written == ('imagenet',)
    assert snapshot(disk / 'coco') == before
    shutil.rmtree(disk / 'imagenet')
    assert write_shapes(link, **TINY).written == ('ade20k', 'imagenet')
    assert link.is_symlink()
    assert contents(disk) == clean


def refuses(root, match, **arguments):
    before = snapshot(root.parent)
    with pytest.raises(DataError, match=match):
        write_shapes(root, **arguments)
    assert snapshot(root.parent) == before


def test_other_data_are_refused(tmp_path):
    foreign = tmp_path / 'coco'
    (foreign / 'annotations').mkdir(parents=True)
    (foreign / 'annotations/instances_val2017.json').write_text('real')
    refuses(foreign, 'coco is not empty', **TINY)
    refuses(foreign / 'annotations/instances_val2017.json', 'is a file', **TINY)
    write_shapes(tmp_path / 'shapes', ['coco'], **TINY)
    for other in (dict(seed=5), dict(num_train=2), dict(size=65)):
        refuses(tmp_path / 'shapes', 'other arguments', **{**TINY, **other})


@pytest.mark.parametrize(
    'arguments',
    [dict(num_train=0), dict(num_val=0), dict(size=8), dict(seed=-1), dict(layouts=['voc']),
     dict(layouts=[])],
)  # fmt: skip
def test_bad_arguments_leave_no_trace(tmp_path, arguments):
    with pytest.raises(ValueError, match=r'must|need'):
        write_shapes(tmp_path / 'shapes', **arguments)
    assert not (tmp_path / 'shapes').exists()


class KilledError(BaseException):
    pass


@pytest.mark.parametrize('first', [(), ('coco',)])
def test_killed_at_any_step_it_leaves_only_whole_layouts(tmp_path, clean, monkeypatch, first):
    """The finally clause does not run either."""
    steps = 0
    while True:
        root, left = tmp_path / str(steps), steps
        if first:
            write_shapes(root, first, **TINY)

        def counted(function):
            def wrapper(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    raise KilledError
                return function(*args, **kwargs)

            return wrapper

        with monkeypatch.context() as context:
            for name in ('rename', 'replace', 'write_text'):
                context.setattr(Path, name, counted(getattr(Path, name)))
            context.setattr(Image, 'save', counted(Image.save))
            context.setattr(store.shutil, 'rmtree', counted(shutil.rmtree))
            killed = False
            try:
                write_shapes(root, **TINY)
            except KilledError:
                killed = True
        for layout in store.LAYOUTS:
            if (root / layout).exists():
                found = {f'{layout}/{n}': data for n, data in contents(root / layout).items()}
                assert found == {n: d for n, d in clean.items() if n.startswith(f'{layout}/')}
        write_shapes(root, **TINY)
        assert contents(root) == clean
        steps += 1
        if not killed:
            break
    assert steps > 8
