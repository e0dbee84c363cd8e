import json
import shutil
from pathlib import Path

import pytest

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


def test_writes_every_layout_and_counts_its_objects(tmp_path):
    report = write_shapes(tmp_path / 'new' / 'shapes', **TINY)
    assert report.root == tmp_path / 'new' / 'shapes'
    assert report.written == ('coco', 'ade20k', 'imagenet')
    assert {path.name for path in report.root.iterdir()} == {MARKER, *report.written}
    for split in ('train', 'val'):
        file = report.root / f'coco/annotations/instances_{split}2017.json'
        assert sum(report.counts[split].values()) == len(
            json.loads(file.read_text())['annotations']
        )


def test_up_to_date_data_are_left_alone(tmp_path):
    first = write_shapes(tmp_path, **TINY)
    before = snapshot(tmp_path)
    again = write_shapes(tmp_path, **TINY)
    assert again.written == ()
    assert again.counts == first.counts
    assert snapshot(tmp_path) == before


def test_another_layout_joins_the_first(tmp_path, clean):
    write_shapes(tmp_path, ['coco'], **TINY)
    before = snapshot(tmp_path / 'coco')
    assert write_shapes(tmp_path, ['coco', 'imagenet'], **TINY).written == ('imagenet',)
    assert snapshot(tmp_path / 'coco') == before
    assert write_shapes(tmp_path, ['ade20k'], **TINY).written == ('ade20k',)
    assert contents(tmp_path) == clean


def test_a_deleted_layout_is_written_again(tmp_path, clean):
    write_shapes(tmp_path, **TINY)
    shutil.rmtree(tmp_path / 'ade20k')
    assert write_shapes(tmp_path, **TINY).written == ('ade20k',)
    assert contents(tmp_path) == clean


def test_a_linked_root_is_written_through(tmp_path, clean):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    write_shapes(tmp_path / 'link', **TINY)
    assert (tmp_path / 'link').is_symlink()
    assert contents(tmp_path / 'disk') == clean


def refuses(root, match, **arguments):
    before = snapshot(root.parent)
    with pytest.raises(DataError, match=match):
        write_shapes(root, **arguments)
    assert snapshot(root.parent) == before


def test_foreign_data_are_refused(tmp_path):
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    (root / 'annotations/instances_val2017.json').write_text('real')
    refuses(root, 'coco is not empty', **TINY)


def test_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_text('real')
    refuses(tmp_path / 'file', 'is a file', **TINY)


def test_scenes_of_other_arguments_are_refused(tmp_path):
    write_shapes(tmp_path / 'shapes', ['coco'], **TINY)
    for other in (dict(seed=5), dict(num_train=2), dict(size=65)):
        refuses(tmp_path / 'shapes', 'other arguments', **{**TINY, **other})


@pytest.mark.parametrize(
    'arguments',
    [
        {'num_train': 0},
        {'num_val': 0},
        {'size': 8},
        {'seed': -1},
        {'layouts': ['voc']},
        {'layouts': []},
    ],
)
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
            for writer in store.LAYOUTS.values():
                context.setattr(writer, 'add', counted(writer.add))
            context.setattr(store.shutil, 'rmtree', counted(shutil.rmtree))
            try:
                write_shapes(root, **TINY)
            except KilledError:
                killed = True
            else:
                killed = False
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
