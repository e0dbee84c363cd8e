"""The converter on a small copy of the archive's layout: three classes instead of 200."""

import runpy
from types import SimpleNamespace

import pytest

from mmcloformer.errors import DataError
from tests.conftest import TOOLS

WORDS = dict(n01='goldfish, Carassius auratus', n02='Egyptian cat', n03='espresso')
TOOL = SimpleNamespace(**runpy.run_path(str(TOOLS['tiny_imagenet.py'])))


@pytest.fixture
def root(tmp_path):
    """Two training images and one validation image per class."""
    root = tmp_path / 'tiny-imagenet-200'
    (root / 'val/images').mkdir(parents=True)
    (root / 'wnids.txt').write_text('n03\nn01\nn02\n')
    lines = [f'{id}\t{words}\n' for id, words in [('n00', 'entity'), *WORDS.items()]]
    (root / 'words.txt').write_text(''.join(lines))
    rows = []
    for number, id in enumerate(WORDS):
        (root / 'train' / id / 'images').mkdir(parents=True)
        for image in range(2):
            (root / 'train' / id / 'images' / f'{id}_{image}.JPEG').touch()
        (root / 'val/images' / f'val_{number}.JPEG').write_text(id)
        rows.append(f'val_{number}.JPEG\t{id}\t0\t0\t9\t9\n')
    (root / 'val/val_annotations.txt').write_text(''.join(rows))
    return root


def convert(root):
    names = TOOL.read_names(root)
    moved = TOOL.sort_validation(root)
    TOOL.check_counts(root, names, num_train=2, num_val=1)
    TOOL.write_names(root, names)
    return moved


def test_images_are_moved_and_classes_named(root):
    assert convert(root) == 3
    for number, id in enumerate(WORDS):
        assert (root / 'val' / id / f'val_{number}.JPEG').read_text() == id
    assert not (root / 'val/images').exists()
    assert (root / 'classes.txt').read_text() == 'goldfish\nEgyptian cat\nespresso\n'
    assert convert(root) == 0


def test_an_interrupted_run_is_continued(root):
    (root / 'val/n02').mkdir()
    (root / 'val/images/val_1.JPEG').rename(root / 'val/n02/val_1.JPEG')
    assert convert(root) == 2


def test_nothing_is_moved_if_images_are_missing_or_unknown(root):
    images = root / 'val/images'
    (images / 'mine.JPEG').touch()
    with pytest.raises(DataError, match=r'does not list \(mine.JPEG\): move them away'):
        convert(root)
    (images / 'mine.JPEG').unlink()
    (images / 'val_0.JPEG').unlink()
    with pytest.raises(DataError, match=r'1 validation images are missing \(val_0.JPEG\)'):
        convert(root)
    assert len(list(images.iterdir())) == 2


def test_a_list_cut_short(root):
    file = root / 'val/val_annotations.txt'
    file.write_text(file.read_text() + 'val_3.JP')
    with pytest.raises(DataError, match='damaged in line 4: extract the archive again'):
        convert(root)


def test_nothing_is_overwritten(root):
    (root / 'val/n01').mkdir()
    (root / 'val/n01/val_0.JPEG').write_text('another')
    with pytest.raises(DataError, match=r'both in .*\(val_0.JPEG\): delete one'):
        convert(root)
    assert (root / 'val/n01/val_0.JPEG').read_text() == 'another'


def test_counts_are_checked(root, tool_error):
    (root / 'train/n02/images/n02_1.JPEG').unlink()
    (root / 'val/other').mkdir()
    with pytest.raises(DataError) as error:
        convert(root)
    assert 'train/n02 has 1 instead of 2' in str(error.value)
    assert 'val/other is not a class of wnids.txt' in str(error.value)
    assert 'lists 3 classes instead of 200' in tool_error('tiny_imagenet.py', root)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r'is not Tiny ImageNet, it has no wnids\.txt'):
        TOOL.read_names(tmp_path)
