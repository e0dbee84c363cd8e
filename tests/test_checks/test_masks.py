import json
import math
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmcloformer.checks.masks import mask_extent, mask_fault, scored_mask_fault


def compressed(mask):
    runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=runs['size'], counts=runs['counts'].decode('ascii'))


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (300, 200)])
@pytest.mark.parametrize('share', [0, 1e-4, 0.1, 0.5, 1])
def test_run_lengths_add_up_unless_they_are_cut(size, share):
    whole = compressed(np.random.RandomState(0).rand(*size) < share)
    assert mask_fault(whole, *size) is None
    for kept in range(0, len(whole['counts']), 97):
        cut = whole | dict(counts=whole['counts'][:kept])
        assert f'of {size[0] * size[1]} pixels' in mask_fault(cut, *size).found


def test_masks_that_pycocotools_scores(real_data):
    for split in ('train', 'val'):
        file = real_data / 'coco' / 'annotations' / f'instances_{split}2017.json'
        content = json.loads(file.read_text())
        images = {image['id']: (image['height'], image['width']) for image in content['images']}
        for annotation in content['annotations']:
            size = images[annotation['image_id']]
            assert scored_mask_fault(annotation['segmentation'], *size) is None


@pytest.mark.parametrize(
    'mask', [None, [], {}, dict(size=[9, 9]), [[]], [[1, 2, 3, 4]], [5, 5, 9, 5, 9, 9]]
)
def test_masks_that_pycocotools_fails_on(mask):
    assert scored_mask_fault(mask, 9, 9)
    coco = COCO()
    coco.imgs = {1: dict(height=9, width=9)}
    with pytest.raises(Exception):  # noqa: B017, PT011 (each fails in another way)
        coco_mask.decode(coco.annToRLE(dict(image_id=1, segmentation=mask)))


# As a mask of pycocotools in 4 GB of memory; without the limit, it goes on to the machine's last.
DRAW = """
import json, resource, sys
from pycocotools import mask
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
mask.frPyObjects([json.loads(sys.argv[1])], 9, 9)
"""


def drawn(polygon):
    command = [sys.executable, '-c', DRAW, json.dumps(polygon)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize('number', [math.nan, -math.inf, 1e300, 9e5])
def test_polygons_that_take_all_memory(number):
    polygon = [-9e5, 5, 9, number, 9, 9]
    fault = mask_fault([polygon], 9, 9)
    assert fault == scored_mask_fault([polygon], 9, 9)
    assert drawn(polygon) == (fault is None) == (number == 9e5)


@pytest.mark.parametrize(
    ('mask', 'extent'),
    [
        ([[1, 2, 5, 2, 5, 9], [7, 3, 8, 3, 8, 4]], (1, 2, 8, 9)),
        ([[1, 2, 5, 2, 5, 9], 7, [1, 2, 3]], (1, 2, 5, 9)),
        ([[1, 2, 5, 2, 5, 9, 4]], None),
        (dict(size=[9, 9], counts=[20, 3, 6, 3, 49]), (2, 2, 4, 5)),
        (dict(size=[9, 9], counts=[81]), None),
    ],
)
def test_the_extent_of_a_mask(mask, extent):
    assert mask_extent(mask, 9, 9) == extent
