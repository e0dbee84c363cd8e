"""One sample at a time, by the loading steps of a host: what its decoder reads is good."""

import io
import re

import mmcv
import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmcloformer.checks.sample import sample_problems

from .odd_images import BAD, DISPUTED, GOOD, HEADER, PIXELS, huge, photo, png


def image_problems(folder, content):
    """Problems of an image as an mmpretrain data set loads it, whatever its suffix."""
    (folder / 'image.jpg').write_bytes(content)
    dataset = CustomDataset(
        data_prefix=str(folder), with_label=False, pipeline=[dict(type='LoadImageFromFile')]
    )
    return list(sample_problems(dataset, 0, None))


def label_map_problems(folder, content, **loading):
    """Problems of a label map beside a whole image, in mmseg."""
    for name, file in (('images', photo()), ('maps', content)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / '1.png').write_bytes(file)
    dataset = BaseSegDataset(
        metainfo=dict(classes=[str(number) for number in range(256)]),
        data_root=str(folder),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        img_suffix='.png',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations', **loading)],
    )
    return list(sample_problems(dataset, 0, 256))


@pytest.mark.parametrize('name', GOOD)
def test_what_the_host_reads_is_good(name, tmp_path):
    assert mmcv.imfrombytes(GOOD[name]) is not None
    assert image_problems(tmp_path, GOOD[name]) == []


def test_more_pixels_than_pillow_takes(tmp_path):
    content = huge(14_000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(content))
    assert image_problems(tmp_path, content) == []
    (problem,) = label_map_problems(tmp_path, content)
    assert 'is too large for Pillow' in problem
    assert "imdecode_backend='cv2'" in problem


@pytest.mark.parametrize('name', BAD)
def test_what_the_host_does_not_read_is_listed(name, tmp_path):
    content, said = BAD[name]
    (problem,) = image_problems(tmp_path, content)
    assert re.search(said, problem), problem
    assert problem.startswith(f'{tmp_path}/image.jpg: ')
    assert 'object at 0x' not in problem


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('name', DISPUTED)
def test_a_label_map_is_judged_by_its_own_reader(name, backend, tmp_path):
    content, said = DISPUTED[name]
    problems = label_map_problems(tmp_path, content, imdecode_backend=backend)
    if said[backend] is None:
        assert problems == []
    else:
        assert re.search(said[backend], problems[0]), problems
        assert 'object at 0x' not in problems[0]


def test_wide_label_maps_of_either_reader(tmp_path):
    wide = np.full((48, 64), 300, np.uint16)
    Image.fromarray(wide).save(tmp_path / 'wide.png')
    for backend in ('cv2', 'pillow'):
        (problem,) = label_map_problems(
            tmp_path, (tmp_path / 'wide.png').read_bytes(), imdecode_backend=backend
        )
        assert 'has values up to 300' in problem


def test_an_error_of_the_examination_is_a_problem_of_the_sample(tmp_path, monkeypatch):
    monkeypatch.setattr('mmcloformer.checks.sample.file_problem', lambda content: 1 / 0)
    (problem,) = image_problems(tmp_path, photo())
    assert problem == (
        f'{tmp_path}/image.jpg: cannot be examined (ZeroDivisionError: division by zero); '
        'correct or remove it'
    )


def test_a_sample_that_the_data_set_cannot_return(tmp_path, monkeypatch):
    monkeypatch.setattr(CustomDataset, 'get_data_info', lambda self, index: {}[index])
    (problem,) = image_problems(tmp_path, photo())
    assert problem.startswith('sample 0: cannot be examined (KeyError: 0)')


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('below\\image.png 0', 'below/image.png exists: write / in place of'),
        ('\ufeffbelow/image.png 0', 'byte-order mark of the annotation file'),
        ('below/absent.png 0', 'put it there'),
        ('below\\absent.png 0', 'put it there'),
    ],
)
def test_a_file_that_is_missing(line, said, tmp_path):
    (tmp_path / 'below').mkdir()
    (tmp_path / 'below' / 'image.png').write_bytes(photo())
    (tmp_path / 'list.txt').write_text(line)
    dataset = CustomDataset(
        data_prefix=str(tmp_path),
        ann_file=str(tmp_path / 'list.txt'),
        metainfo=dict(classes=['one']),
        pipeline=[dict(type='LoadImageFromFile')],
    )
    (problem,) = sample_problems(dataset, 0, None)
    assert ': is missing' in problem
    assert said in problem


def test_no_image_of_many_ends_the_run(tmp_path):
    """All odd files in one data set."""
    files = [*GOOD.values(), *(content for content, _ in BAD.values()), png(HEADER, *PIXELS), b'']
    for number, content in enumerate(files):
        (tmp_path / f'{number:03}.png').write_bytes(content)
    dataset = CustomDataset(
        data_prefix=str(tmp_path), with_label=False, pipeline=[dict(type='LoadImageFromFile')]
    )
    found = [list(sample_problems(dataset, index, None)) for index in range(len(dataset))]
    assert [len(problems) for problems in found] == [0] * len(GOOD) + [1] * (len(BAD) + 2)
