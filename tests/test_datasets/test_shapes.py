import os
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from mmcloformer.datasets import shapes
from mmcloformer.datasets.shapes import CLASSES, METAINFO, SEG_METAINFO, make_scene
from mmcloformer.datasets.sheet import contact_sheet

COUNT = 60


@pytest.fixture(scope='module')
def scenes():
    return [make_scene(index) for index in range(COUNT)]


def test_metainfo_is_consistent():
    assert list(CLASSES) == sorted(CLASSES)
    for metainfo in (METAINFO, SEG_METAINFO):
        assert len(set(metainfo['classes'])) == len(set(metainfo['palette']))
    assert SEG_METAINFO['classes'][1:] == CLASSES
    assert SEG_METAINFO['palette'][1:] == METAINFO['palette']


def test_scene_is_the_same_alone_and_in_another_process(scenes):
    code = (
        'import zlib\n'
        'from mmcloformer.datasets.shapes import make_scene\n'
        'scene = make_scene(7)\n'
        'print(*map(zlib.crc32, [scene.image, *(i.mask for i in scene.instances)]))\n'
    )
    env = {**os.environ, 'PYTHONHASHSEED': '1', 'OMP_NUM_THREADS': '1'}
    there = subprocess.run(
        [sys.executable, '-c', code], env=env, check=True, capture_output=True, text=True
    )
    here = [zlib.crc32(part) for part in (scenes[7].image, *(i.mask for i in scenes[7].instances))]
    assert list(map(int, there.stdout.split())) == here


def test_scenes_of_this_version():
    # A change here needs a new `VERSION`, or written data sets pass for up to date.
    found = [(CLASSES[i.label], i.bbox) for i in make_scene(0).instances]
    assert shapes.VERSION == 1
    assert found == [
        ('ring', (9, 39, 61, 91)),
        ('ring', (72, 22, 125, 75)),
        ('star', (52, 44, 103, 92)),
    ]


def test_scenes_differ_between_index_split_and_seed():
    images = [
        make_scene(0).image,
        make_scene(1).image,
        make_scene(0, 'val').image,
        make_scene(0, seed=1).image,
    ]
    assert len({image.tobytes() for image in images}) == len(images)


def test_objects_are_where_the_boxes_say_and_big_enough_to_find(scenes):
    for scene in scenes:
        assert scene.image.shape == (128, 128, 3)
        assert scene.image.dtype == np.uint8
        assert 1 <= len(scene.instances) <= 4
        assert sum(i.mask.astype(int) for i in scene.instances).max() == 1  # Masks are disjoint.
        for instance in scene.instances:
            x1, y1, x2, y2 = instance.bbox
            assert 20 <= max(x2 - x1, y2 - y1) <= 73
            inside = instance.mask[y1:y2, x1:x2]
            assert inside.sum() == instance.mask.sum() == instance.area >= 100
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()
    assert make_scene(0, size=200).image.shape == (200, 200, 3)


def test_all_that_is_drawn_is_labelled(monkeypatch):
    # On a ground without texture, light or noise, whatever is left unmasked is plain ground.
    def plain(rng, colour, size, strength):
        return np.broadcast_to(np.array(colour), (size, size, 3)).copy()

    monkeypatch.setattr(shapes, '_textured', plain)
    monkeypatch.setattr(shapes, '_light', lambda rng, size: np.ones((size, size)))
    for index in range(20):
        scene = make_scene(index)
        masked = np.any([i.mask for i in scene.instances], axis=0)
        image = scene.image.astype(int)
        ground = np.median(image[~masked], axis=0)
        differs = np.abs(image - ground).max(axis=2) > 25
        # Anti-aliasing lets half a pixel of an edge stick out of its mask.
        grown = cv2.dilate(masked.astype(np.uint8), np.ones((3, 3))).astype(bool)
        assert not (differs & ~grown).any()
        assert differs[masked].mean() > 0.95


def test_some_objects_hide_others(scenes):
    boxes = [[i.bbox for i in scene.instances] for scene in scenes]
    overlaps = sum(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
        for group in boxes
        for n, a in enumerate(group)
        for b in group[:n]
    )
    assert overlaps > COUNT / 10


def test_all_classes_are_about_as_frequent(scenes):
    labels = [i.label for scene in scenes for i in scene.instances]
    share = np.bincount(labels, minlength=len(CLASSES)) / len(labels)
    assert share.min() > 0.5 / len(CLASSES)


@pytest.mark.parametrize(
    'arguments',
    [{'index': -1}, {'index': 0, 'seed': -1}, {'index': 0, 'size': 20}, {'index': 0, 'split': 'x'}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match='must'):
        make_scene(**arguments)


def test_contact_sheet_holds_every_scene(scenes):
    sheet = contact_sheet(scenes[:5], columns=3)
    assert sheet.shape == (4 + 2 * (256 + 4), 4 + 3 * (256 + 4), 3)
    for number, scene in enumerate(scenes[:5]):
        y, x = (4 + 260 * place for place in divmod(number, 3))
        tile = sheet[y : y + 256 : 2, x : x + 256 : 2]
        ground = ~np.any([i.mask for i in scene.instances], axis=0)
        assert (tile[ground] == scene.image[ground]).mean() > 0.8  # All but boxes and names.
        for instance in scene.instances:
            assert (tile[instance.mask] != scene.image[instance.mask]).any()
    assert (sheet[264:, 2 * 260 + 4 :] == 255).all()
