import json
import os
import shutil

import pytest

from mmcloformer.datasets import store
from mmcloformer.datasets.store import MARKER, write_shapes
from mmcloformer.errors import DataError

TINY = {'num_train': 1, 'num_val': 1, 'size': 64}
OTHER = {**TINY, 'seed': 5}


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
    """Return what an undisturbed call writes, by seed."""
    folder = tmp_path_factory.mktemp('clean')
    for arguments in (TINY, OTHER):
        write_shapes(folder / str(arguments.get('seed', 0)), **arguments)
    return {seed: contents(folder / str(seed)) for seed in (0, 5)}


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
    assert contents(tmp_path) == clean[0]


def test_other_arguments_replace_only_what_was_written(tmp_path, clean):
    write_shapes(tmp_path, **TINY)
    note = tmp_path / 'note.txt'
    note.write_text('mine')
    write_shapes(tmp_path, **OTHER)
    assert note.read_text() == 'mine'
    note.unlink()
    assert contents(tmp_path) == clean[5]


def test_outdated_layouts_do_not_stay_beside_new_ones(tmp_path):
    write_shapes(tmp_path, **TINY)
    write_shapes(tmp_path, ['coco'], **OTHER)
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, 'coco'}


def test_a_deleted_layout_is_written_again(tmp_path, clean):
    write_shapes(tmp_path, **TINY)
    shutil.rmtree(tmp_path / 'ade20k')
    assert write_shapes(tmp_path, **TINY).written == ('ade20k',)
    assert contents(tmp_path) == clean[0]


def test_a_linked_root_is_written_through(tmp_path, clean):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    write_shapes(tmp_path / 'link', **TINY)
    assert (tmp_path / 'link').is_symlink()
    assert contents(tmp_path / 'disk') == clean[0]


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


@pytest.mark.parametrize('arguments', [TINY, OTHER])
@pytest.mark.parametrize('change', ['edited', 'added', 'removed'])
def test_a_changed_layout_is_refused(tmp_path, arguments, change):
    root = tmp_path / 'shapes'
    write_shapes(root, **TINY)
    image = root / 'coco/train2017/000000000001.png'
    if change == 'edited':
        image.write_bytes(b'mine')
    elif change == 'added':
        image.with_name('mine.png').write_bytes(b'mine')
    else:
        image.unlink()
    refuses(root, 'coco holds files', **arguments)


def test_a_foreign_folder_of_a_layouts_name_is_refused(tmp_path):
    root = tmp_path / 'shapes'
    write_shapes(root, ['coco'], **TINY)
    (root / 'imagenet').mkdir()
    (root / 'imagenet/n01440764.tar').write_text('real')
    refuses(root, 'imagenet holds files', **TINY)


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


def killed_at(step, root, arguments):
    """Run `write_shapes` in a process that dies before its `step`-th change to the disk.

    Returns:
        Whether it died; otherwise it was done before.
    """
    child = os.fork()
    if child == 0:
        left = step

        def counted(function):
            def wrapper(*args, **kwargs):
                nonlocal left
                if left == 0:
                    os._exit(9)
                left -= 1
                return function(*args, **kwargs)

            return wrapper

        store.os.rename = counted(os.rename)
        store.os.replace = counted(os.replace)
        store.shutil.rmtree = counted(shutil.rmtree)
        for writer in store.LAYOUTS.values():
            writer.add = counted(writer.add)
            writer.close = counted(writer.close)
        try:
            write_shapes(root, **arguments)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize('earlier', [None, TINY], ids=['fresh', 'over an earlier set'])
def test_killed_at_any_step_it_leaves_only_whole_layouts(tmp_path, clean, earlier):
    whole = [
        {name: data for name, data in files.items() if name.startswith(f'{layout}/')}
        for files in clean.values()
        for layout in store.LAYOUTS
    ]
    step = 0
    while True:
        root = tmp_path / str(step)
        if earlier:
            write_shapes(root, **earlier)
        if not killed_at(step, root, OTHER):
            break
        for layout in store.LAYOUTS:
            if (root / layout).exists():
                found = {f'{layout}/{n}': data for n, data in contents(root / layout).items()}
                assert found in whole
        write_shapes(root, **OTHER)
        assert contents(root) == clean[5]
        step += 1
    assert step > 15
    assert contents(root) == clean[5]
