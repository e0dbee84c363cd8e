"""Annotation files that are hard to read without a full JSON parser."""

import json
import random

import pytest
from mmengine.config import Config

from mmcloformer.checks import coco
from mmcloformer.config import ConfigView

CLASSES = ['ring', 'star']


def problems(path, text, **settings):
    path.write_text(text, encoding='utf-8')
    dataset = dict(type='CocoDataset', ann_file=str(path), metainfo=dict(classes=CLASSES))
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset | settings)))
    found = coco.coco_problems(ConfigView(cfg), ['train'], thorough='data_prefix' not in settings)
    return [each for each in found if each.severity == 'error']


def content():
    return dict(
        info=dict(note='"image_id": 7, "bbox": [NaN], "segmentation": [[1, 2, 3]]'),
        images=[dict(id=i, file_name=f'{i}.png', height=9, width=9) for i in (1, 2, 3)],
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)],
        annotations=[
            dict(
                id=i,
                image_id=i % 3 + 1,
                category_id=i % 2 + 1,
                bbox=[1, 2.5, 3, 4],
                area=12,
                segmentation=[[0.5, 1, 2, -3.25, 4, 5], [1, 2, 3, 4, 5, 6]],
            )
            for i in range(6)
        ],
    )


def with_attributes(file):
    file['annotations'][0]['attributes'] = dict(image_id=99, category_id=99, bbox=[None])


def with_captions(file):
    file['captions'] = [dict(image_id=99, id=1, caption='"category_id": 99')]


def with_nested_lists(file):
    inner = dict(images=[dict(id=9, file_name='x')], categories=[dict(id=9, name='other')])
    file['info'].update(inner, annotations=[dict(image_id=99, category_id=99)])


def with_an_ignored_annotation(file):
    file['annotations'][0].update(ignore=True, category_id=99, image_id=99, bbox=None)


HARMLESS = [with_attributes, with_captions, with_nested_lists, with_an_ignored_annotation]


def test_what_the_host_accepts_passes(tmp_path):
    for change in HARMLESS:
        file = content()
        change(file)
        assert problems(tmp_path / 'file.json', json.dumps(file)) == [], change.__name__
    text = json.dumps(content())
    for old, new in (
        ('"image_id"', r'"image\u005fid"'),
        ('"image_id": 1', '"image_id": 99, "image_id": 1'),
        ('"images"', '"images": [], "images"'),
    ):
        assert problems(tmp_path / 'file.json', text.replace(old, new)) == []


def unlisted_image(file):
    file['annotations'][1]['image_id'] = 99


def unlisted_category(file):
    file['annotations'][1]['category_id'] = 99


def no_category_id(file):
    del file['annotations'][1]['category_id']


def no_box(file):
    del file['annotations'][1]['bbox']


def odd_box(file):
    file['annotations'][1]['bbox'] = [1, float('nan'), 2, 3]


def text_in_box(file):
    file['annotations'][1]['bbox'] = ['1', 2, 3, 4]


def short_box(file):
    file['annotations'][1]['bbox'] = [1, 2, 3]


def no_annotation(file):
    file['annotations'][1] = None


FAULTS = [
    (unlisted_image, 'image_id 99'),
    (unlisted_category, 'no category has the id 99'),
    (no_category_id, 'annotations need the fields id, image_id, category_id; the list entries 1 '),
    (no_box, 'annotation 1: no bbox; add it'),
    (odd_box, 'annotation 1: its box is not four finite numbers'),
    (text_in_box, 'annotation 1: its box is not four finite numbers'),
    (short_box, 'annotation 1: its box is not four finite numbers'),
    (no_annotation, 'annotations need the fields'),
]


@pytest.mark.parametrize(
    ('change', 'message'), FAULTS, ids=lambda value: getattr(value, '__name__', '')
)
def test_faults_are_found(change, message, tmp_path):
    file = content()
    change(file)
    (problem,) = problems(tmp_path / 'file.json', json.dumps(file))
    assert message in f'{problem.found}; {problem.remedy}'
    escaped = json.dumps(file).replace('_id"', r'\u005fid"').replace('"bbox"', r'"\u0062box"')
    assert problems(tmp_path / 'file.json', escaped) == [problem]


def test_polygons_that_are_not_json_are_refused(tmp_path):
    text = json.dumps(content())
    for bad in ('[1,, 2]', '[01]', '[1.]', '[.5]', '[+1]', '[1 2]', '[1', '1]', '[1,]', '[1\x0b]'):
        broken = text.replace('[0.5, 1, 2, -3.25, 4, 5]', bad, 1)
        (problem,) = problems(tmp_path / 'file.json', broken)
        assert "not in COCO's format" in problem.found, bad


def random_text(rng):
    """Return a file with some harmless oddities, faults and changed characters."""
    file = content()
    if rng.random() < 0.3:
        rng.choice(HARMLESS)(file)
    if rng.random() < 0.5:
        rng.choice(FAULTS)[0](file)
    mask = rng.choice([[], [[]], [[1e-7, 2e22]], [[float('nan')]], dict(counts=[1]), [[0, -0.0]]])
    file['annotations'][2]['segmentation'] = mask
    layout = rng.choice([dict(), dict(indent=1), dict(separators=(',', ':'))])
    text = json.dumps(file, **layout)
    if rng.random() < 0.2:
        text = text[: rng.randrange(len(text))]
    for _ in range(rng.choice([0, 0, 1, 2])):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice('"\\[]{},:.0-e \n') + text[place + rng.randrange(2) :]
    if rng.random() < 0.3:
        text = text.replace('image_id', r'image\u005fid', rng.randrange(5))
    return text


def test_the_result_is_that_of_a_full_parse(tmp_path, monkeypatch):
    rng = random.Random(0)
    found = []
    for _ in range(800):
        text = random_text(rng)
        fast = problems(tmp_path / 'file.json', text)
        with monkeypatch.context() as patch:
            patch.setattr(coco, 'parse_without_polygons', json.loads)
            full = problems(tmp_path / 'file.json', text)
        assert fast == full, text
        found.append(bool(full))
    assert 100 < sum(found) < 700


def test_images_that_the_host_filters_out_need_not_exist(tmp_path):
    file = content()
    file['images'].append(dict(id=4, file_name='absent.png', height=9, width=9))
    for i in (1, 2, 3):
        (tmp_path / f'{i}.png').touch()
    path, text = tmp_path / 'file.json', json.dumps(file)
    folder = dict(img=str(tmp_path))
    assert problems(path, text, data_prefix=folder, filter_cfg=dict(filter_empty_gt=True)) == []
    (problem,) = problems(path, text, data_prefix=folder)
    assert '1 of 4 images are not in' in problem.found
