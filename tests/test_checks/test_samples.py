"""One sample at a time, by the loading steps of a host: what its decoder reads is good."""

import re

import mmcv
import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmcloformer.checks.problem import render
from mmcloformer.checks.samples import Expected, examine_sample

from .odd_images import BAD, DISPUTED, GOOD, NOISE, encode, photo

FIELD = 'train_dataloader.dataset'


def sample_problems(dataset, num_classes=None, index=0):
    return examine_sample(dataset, Expected(FIELD, num_classes), index)[0]


def image_problems(folder, content):
    """Problems of an image as an mmpretrain data set loads it, whatever its suffix."""
    (folder / 'image.jpg').write_bytes(content)
    dataset = CustomDataset(
        data_prefix=str(folder), with_label=False, pipeline=[dict(type='LoadImageFromFile')]
    )
    return render(sample_problems(dataset))


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
    found = sample_problems(dataset, 256)
    return render(each for each in found if each.severity == 'error')  # Of noise, not of regions.


@pytest.mark.parametrize('name', GOOD)
def test_what_the_host_reads_is_good(name, tmp_path):
    assert mmcv.imfrombytes(GOOD[name]) is not None
    assert image_problems(tmp_path, GOOD[name]) == []


def test_more_pixels_than_pillow_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    assert image_problems(tmp_path, photo()) == []  # OpenCV reads it.
    (problem,) = label_map_problems(tmp_path, photo(mode='L'))
    assert 'too many pixels' in problem
    assert 'imdecode_backend' in problem


@pytest.mark.parametrize('name', BAD)
def test_what_the_host_does_not_read_is_listed(name, tmp_path):
    content, said = BAD[name]
    (problem,) = image_problems(tmp_path, content)
    assert re.search(said, problem), problem
    assert problem.startswith(f'{tmp_path}/image.jpg ({FIELD}): ')
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


@pytest.mark.parametrize('method', ['pipeline', 'get_data_info'])
def test_an_error_of_the_examination_is_a_problem_of_the_sample(method):
    dataset = listed(dict(img_path='image.jpg'), [])
    setattr(dataset, method, None)
    (problem,) = sample_problems(dataset)
    assert problem.found.startswith('cannot be examined (')
    assert problem.file == ('image.jpg' if method == 'pipeline' else 'sample 0')


@pytest.mark.parametrize('name', ['below/absent.png', 'below\\image.png'])
def test_a_file_that_is_missing(name, tmp_path):
    dataset = listed(dict(img_path=f'{tmp_path}/{name}'), [dict(type='LoadImageFromFile')])
    (problem,) = sample_problems(dataset)
    assert problem.found == 'is missing'
    assert ('write / in place' in problem.remedy) == ('\\' in name)


class OwnLoader(mmcv.transforms.BaseTransform):
    """Reads images in a way of its own, wherever they are."""

    def transform(self, results):
        image = np.zeros((48, 64, 3), np.uint8) + 99
        return dict(results, img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])


class OwnSubclass(mmcv.transforms.LoadImageFromFile):
    """Reads files of another name than the data set says."""

    def transform(self, results):
        results['img_path'] = results['img_path'].replace('image', 'other')
        return super().transform(results)


class OwnLabels(LoadAnnotations):
    """Reads label maps of 16 bits from arrays; it does not call the host's initialisation."""

    def __init__(self):
        self.with_seg, self.with_bbox = True, False

    def transform(self, results):
        return dict(results, gt_seg_map=np.load(results['seg_map_path']))


def test_label_maps_of_the_users_own_format_are_good(tmp_path):
    (tmp_path / 'image.png').write_bytes(photo())
    np.save(tmp_path / 'map.npy', np.full((48, 64), 300, np.uint16))
    dataset = listed(
        dict(img_path=f'{tmp_path}/image.png', seg_map_path=f'{tmp_path}/map.npy'),
        [dict(type='LoadImageFromFile'), OwnLabels()],
    )
    assert render(sample_problems(dataset, 301)) == []
    assert 'the label 300' in render(sample_problems(dataset, 300))[0]


def listed(info, pipeline):
    """A data set of one sample."""
    dataset = BaseSegDataset(lazy_init=True, pipeline=pipeline)
    dataset.data_list, dataset._fully_initialized = [info], True
    dataset.serialize_data = False
    return dataset


@pytest.mark.parametrize('step', [OwnLoader, OwnSubclass])
def test_what_a_loader_of_the_users_own_reads_is_good(step, tmp_path):
    (tmp_path / 'image.jpg').write_bytes(b'')
    (tmp_path / 'other.jpg').write_bytes(photo('JPEG'))
    dataset = listed(dict(img_path=f'{tmp_path}/image.jpg'), [step()])
    assert render(sample_problems(dataset)) == []


def turned(turn, size=(48, 48)):
    exif = Image.Exif()
    exif[0x112] = turn
    return encode(Image.fromarray(NOISE[: size[0], : size[1]]), 'JPEG', exif=exif)


FOLLOWED = (dict(), dict(color_type='grayscale'))
OTHERS = (dict(color_type='color_ignore_orientation'), dict(color_type='unchanged'))


@pytest.mark.parametrize(
    ('turn', 'size', 'said'),
    [
        (1, (48, 48), False),
        *((turn, (48, 48), True) for turn in range(2, 9)),
        *((turn, (40, 64), True) for turn in range(2, 5)),
    ],
)
def test_an_exif_turn_that_keeps_the_size_is_a_warning(turn, size, said, tmp_path):
    for loading in FOLLOWED:
        warnings = annotated_problems(tmp_path, turned(turn, size), size, **loading)
        assert [each.severity for each in warnings] == ['warning'] * said
        assert all('EXIF' in each.found for each in warnings)
    for loading in OTHERS:
        assert annotated_problems(tmp_path, turned(turn, size), size, **loading) == []
    assert image_problems(tmp_path, turned(turn, size)) == []  # It does not matter to a classifier.


def annotated_problems(folder, content, size, **loading):
    """Problems of an image of an mmdet and an mmseg data set, which are the same."""
    (folder / 'image.jpg').write_bytes(content)
    found = []
    with_label_map = dict(img_path=f'{folder}/image.jpg', seg_map_path=f'{folder}/map.png')
    Image.fromarray(np.zeros(size, np.uint8)).save(folder / 'map.png')
    with_boxes = dict(with_label_map, height=size[0], width=size[1], instances=[])
    for scope, info in (
        ('mmseg', dict(with_label_map, reduce_zero_label=False, label_map=None, seg_fields=[])),
        ('mmdet', with_boxes),
    ):
        annotations = dict(type=f'{scope}.LoadAnnotations')
        dataset = listed(info, [dict(type='LoadImageFromFile', **loading), annotations])
        found.append(sample_problems(dataset))
    assert found[0] == found[1]
    return found[0]


def wide(bits, kind='PNG'):
    grey = (NOISE[..., 0].astype(np.uint16) << 8) >> (16 - bits)
    return encode(Image.fromarray(grey), kind)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_16_bits_of_which_few_are_used_are_a_warning(bits, kind, tmp_path):
    problems = image_problems(tmp_path, wide(bits, kind))
    assert len(problems) == (bits < 16)
    assert all(f'take {bits}' in each for each in problems)
    assert len(annotated_problems(tmp_path, wide(bits, kind), (48, 64))) == (bits < 16)
    assert annotated_problems(tmp_path, wide(bits, kind), (48, 64), color_type='unchanged') == []


def test_dark_images_of_8_bits_are_good(tmp_path):
    dark = Image.fromarray(NOISE // 16)
    for kind in ('PNG', 'JPEG', 'TIFF'):
        assert image_problems(tmp_path, encode(dark, kind)) == []
