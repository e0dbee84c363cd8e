"""What is said of images that cannot be predicted. Real predictions are in test_tools."""

import re

import numpy as np
import pytest
from PIL import Image

from mmcloformer.apis.predict import image_problem, predict_file
from mmcloformer.errors import DataError
from tests.test_checks.odd_images import BAD, GOOD


def message(error, size, folder):
    file = folder / 'image.png'
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(file)

    def predict(path):
        raise error

    with pytest.raises(DataError) as raised:
        predict_file(predict, file)
    return str(raised.value).removeprefix(f'{file} cannot be predicted')


@pytest.mark.parametrize(
    ('error', 'size', 'said'),
    [
        (IndexError('list index out of range'), (64, 48), ': IndexError: list index out of range'),
        (KeyError('seg'), (640, 480), ": KeyError: 'seg'"),
        (
            RuntimeError('Output size is too small'),
            (300, 1),
            ', perhaps because it is too narrow (300x1 pixels): RuntimeError: Output size is too '
            'small',
        ),
        (ValueError(''), (40, 2000), ', perhaps because it is too narrow (40x2000 pixels): '
         'ValueError'),
        (MemoryError(), (64, 48), ', it is too large for the memory (64x48 pixels): MemoryError'),
        (
            RuntimeError('CUDA out of memory. Tried to allocate 9 GiB'),
            (64, 48),
            ', it is too large for the memory (64x48 pixels): RuntimeError: CUDA out of memory. '
            'Tried to allocate 9 GiB',
        ),
        (
            ValueError('cannot identify <_io.BytesIO object at 0x7fdbdbd3>'),
            (64, 48),
            ': ValueError: cannot identify the file',
        ),
    ],
)  # fmt: skip
def test_the_size_is_named_only_where_it_is_plausible(error, size, said, tmp_path):
    assert message(error, size, tmp_path) == said


@pytest.mark.parametrize('name', GOOD)
def test_whole_images(name, tmp_path):
    file = tmp_path / 'image.jpg'
    file.write_bytes(GOOD[name])
    assert image_problem(file) is None
    assert predict_file(lambda path: path, file) == file


@pytest.mark.parametrize('name', BAD)
def test_bad_images(name, tmp_path):
    file = tmp_path / 'image.jpg'
    content, said = BAD[name]
    file.write_bytes(content)
    assert re.search(said, image_problem(file))
    with pytest.raises(DataError, match=r'image\.jpg (is|cannot be read)'):
        predict_file(lambda path: path, file)
