"""Whole and damaged images; the samples of `shared/data` are those a false alarm would meet."""

import io
import random

import cv2
import numpy as np
import pytest
from PIL import Image

from mmcloformer.checks.image import decode, file_problem


def photo(kind, size=(96, 64), **options):
    noise = np.random.RandomState(0).randint(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).resize(size).save(content, kind, **options)
    return content.getvalue()


def load(content):
    return decode(lambda: cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))


JPEGS = [
    dict(),
    dict(progressive=True),
    dict(quality=100, subsampling=0),
    dict(comment=b'\xff\xda\xff\xd9'),
]


@pytest.mark.parametrize('options', JPEGS, ids=str)
def test_a_jpeg_cut_anywhere(options):
    whole = photo('JPEG', **options)
    assert file_problem(whole) is None
    assert file_problem(whole + b'\0' * 100 + b'what a camera adds \xff\xda') is None
    assert file_problem(whole[:2] + b'\xff' * 9 + whole[2:]) is None  # Padding.
    for end in random.Random(0).sample(range(3, len(whole)), 50):
        assert 'is cut short' in file_problem(whole[:end]).found
    for end in range(whole.rindex(b'\xff\xda') + 2, len(whole), 50):
        assert 'is cut short' in file_problem(whole[:end] + bytes(len(whole) - end)).found


def test_the_end_of_a_thumbnail_is_not_the_end():
    exif = Image.Exif()
    exif[0x9286] = photo('JPEG', (32, 32))
    whole = photo('JPEG', exif=exif)
    assert whole.count(b'\xff\xd9') == 2
    assert file_problem(whole) is None
    assert 'is cut short' in file_problem(whole[:-2]).found


def test_a_png_cut_or_changed_anywhere():
    whole = photo('PNG')
    assert file_problem(whole) is None
    for place in random.Random(0).sample(range(8, len(whole) - 12), 50):
        changed = bytearray(whole)
        changed[place] ^= 1
        for damaged in (whole[:place], bytes(changed)):
            assert 'is cut short or damaged' in file_problem(damaged).found


def test_lost_pixels_are_heard_and_nothing_is_left_of_the_listening(capfd):
    whole = photo('JPEG')
    middle = len(whole) * 3 // 4
    image, problem = load(whole)
    assert problem is None
    damaged, problem = load(whole[:middle] + b'\xff\xd9' + whole[middle + 2 :])
    assert 'part of the picture is lost' in problem.found
    assert damaged.shape == image.shape
    assert (damaged != image).any()
    with pytest.raises(ZeroDivisionError):
        decode(lambda: 1 / 0)
    assert not capfd.readouterr().err


def test_real_images_are_whole(real_data):
    files = [path for path in real_data.rglob('*') if path.suffix in ('.jpg', '.JPEG', '.png')]
    assert len(files) > 200
    for file in files[::8]:
        content = file.read_bytes()
        assert file_problem(content) is None
        assert load(content)[1] is None
