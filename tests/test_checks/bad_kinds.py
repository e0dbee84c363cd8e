"""All kinds of unusual files tested, what the host does with them, and what the check reports."""

import math
from typing import Any, NamedTuple

import numpy as np

from . import corruptions as to

FILES = ('mask', 'seg', 'cls')  # Mask R-CNN, mmseg, mmpretrain; 'box' is RetinaNet.


class Kind(NamedTuple):
    """One kind of file, in one host.

    Attributes:
        name: What is unusual about the file.
        host: One of `FILES`, or `box`.
        split: Split that the file belongs to.
        corrupt: Makes the file, given the host, the root of its data and the split.
        crashes: Whether the host crashes.
        reported: Pattern of what the check reports; None if it reports nothing.
    """

    name: str
    host: str
    split: str
    corrupt: Any
    crashes: bool
    reported: str | None


def crashes(name, hosts, corrupt, reported, split='train'):
    return [Kind(name, host, split, corrupt, True, reported) for host in hosts]


def harms(name, hosts, corrupt, reported, split='train'):
    """Kinds that silently harm training or evaluation."""
    return [Kind(name, host, split, corrupt, False, reported) for host in hosts]


def tolerated(name, hosts, corrupt, split='train'):
    return [Kind(name, host, split, corrupt, False, None) for host in hosts]


IMAGES = [
    *crashes('truncated JPEG', FILES, to.image(to.cut('JPEG')), 'is cut short'),
    *crashes('truncated PNG', FILES, to.image(to.cut('PNG')), 'is cut short'),
    *crashes('zero-byte image', FILES, to.image(to.empty), 'is empty'),
    *crashes('text', FILES, to.image(to.text), 'is not an image'),
    *crashes('missing image', ('mask',), to.image(to.missing), 'is missing'),
    *crashes(
        'format unknown to OpenCV',
        FILES,
        to.image(to.converted('F', 'TIFF')),
        'cannot be read by the host .* a whole TIFF of mode F',
    ),
    *harms('JPEG damaged inside', FILES, to.image(to.early_end), 'part of the picture is lost'),
    *harms('EXIF turn', ('box',), to.turned_and_annotated, 'is 48x64, .* says 64x48; an EXIF tag'),
    *crashes('EXIF turn', ('seg',), to.image(to.turned), 'is 64x64, its image 48x64', 'val'),
    *tolerated('EXIF turn', ('cls',), to.image(to.turned)),
    *harms('other size', ('box',), to.image(to.narrowed), 'is 60x64, its annotation says 64x64'),
    *tolerated('other size', ('cls',), to.image(to.narrowed)),
    *tolerated('greyscale', FILES, to.image(to.converted('L'))),
    *tolerated('RGBA', FILES, to.image(to.converted('RGBA'))),
    *tolerated('palette', FILES, to.image(to.converted('P'))),
    *tolerated('16-bit PNG', FILES, to.image(to.as_16_bit)),
    *tolerated('CMYK JPEG', FILES, to.image(to.converted('CMYK', 'JPEG'))),
]
MASK, VAL = ('mask',), 'val'
OBJECTS = [
    *tolerated('box outside', MASK, to.first(bbox=[90, 90, 9, 9])),
    *tolerated('box over the edge', MASK, to.first(bbox=[-9, -9, 90, 90])),
    *tolerated('box of no size', MASK, to.first(bbox=[9, 9, 0, 0])),
    *tolerated('box of negative size', MASK, to.first(bbox=[30, 30, -9, -9])),
    *harms('boxes as fractions', MASK, to.every(bbox=[0.2, 0.2, 0.5, 0.5]), 'host drops'),
    *crashes(
        'box of 3 numbers',
        MASK,
        to.first(bbox=[1, 2, 3]),
        'annotation 1: its bbox is not four finite numbers',
    ),
    *harms('NaN in a box', MASK, to.first(bbox=[math.nan] * 4), 'annotation 1: its bbox is', VAL),
    *crashes('no area', MASK, to.without('area'), 'annotation 1: its area is not a number'),
    *harms('unlisted category', MASK, to.first(category_id=999), 'its category_id is not in'),
    *tolerated(
        'ignored object', MASK, to.first(ignore=True, category_id=999, image_id=99, bbox=None)
    ),
    *tolerated('ids with a decimal point', MASK, to.annotations(to.decimal_ids)),
    *tolerated('no iscrowd', MASK, to.without('iscrowd')),
    *crashes('no iscrowd', MASK, to.without('iscrowd'), 'annotation 1: its iscrowd', VAL),
    *crashes('ids not unique', MASK, to.every(id=1), 'several have this id'),
    *crashes('no mask', MASK, to.first(segmentation=[]), 'has no mask'),
    *tolerated('no mask', ('box',), to.first(segmentation=[])),
    *crashes(
        'polygon not in a list',
        MASK,
        to.first(segmentation=[5, 5, 9, 5, 9, 9]),
        'the host cannot load its annotations .*has no len',
    ),
    *tolerated('empty polygon', MASK, to.first(segmentation=[[]])),
    *crashes(
        'empty polygon',
        MASK,
        to.first(segmentation=[[]]),
        'annotation 1: its mask is not a list of polygons of three points',
        VAL,
    ),
    *tolerated('polygon of no area', MASK, to.first(segmentation=[[5] * 6])),
    *tolerated('polygon outside', MASK, to.first(segmentation=[[80, 80, 90, 80, 90, 90]])),
    *tolerated(
        'run lengths of no area', MASK, to.first(segmentation=dict(size=[64, 64], counts=[4096]))
    ),
    *harms(
        'too few run lengths',
        MASK,
        to.first(segmentation=dict(size=[64, 64], counts=[9, 9])),
        'run lengths cover 18 of 4096',
    ),
    *crashes(
        'run lengths of another size',
        MASK,
        to.first(segmentation=dict(size=[32, 32], counts=[1000, 24])),
        r'its mask is \[32, 32\] high and wide',
    ),
]
NO_OBJECTS = to.annotations(lambda content: content['annotations'].clear())
NO_IMAGES = to.annotations(lambda content: content.update(images=[], annotations=[]))
FORMAT = "not in COCO's format"
ANNOTATION_FILES = [
    *crashes('zero-byte annotation file', MASK, to.annotation_text(''), FORMAT),
    *crashes('no images', MASK, NO_IMAGES, FORMAT),
    *crashes('no objects', MASK, NO_OBJECTS, 'all 3 images are left out'),
    *harms('no objects', MASK, NO_OBJECTS, 'leaves out every object', VAL),
    *tolerated('image without objects', MASK, to.annotations(to.move_objects)),
    *crashes(
        'image without height',
        MASK,
        to.annotations(lambda content: content['images'][0].pop('height')),
        'image 1: its height',
    ),
    *harms('id of two images', MASK, to.annotations(to.share_an_id), 'image 2: several files'),
    *tolerated('image listed twice', MASK, to.annotations(to.list_twice)),
]
SEG = ('seg',)
ANY_LABEL = 6  # Of 5 classes, after reduce_zero_label.
LABEL_MAPS = [
    *crashes('zero-byte label map', SEG, to.label_map(to.empty), 'is empty'),
    *crashes('missing label map', SEG, to.label_map(to.missing), 'is missing'),
    *crashes('text label map', SEG, to.label_map(to.text), 'not an image'),
    *crashes('truncated label map', SEG, to.label_map(to.cut('PNG')), 'is cut short'),
    *harms(
        'damaged inside label map', SEG, to.label_map(to.noise_in_label_map), 'cut short or damaged'
    ),
    *crashes(
        'other size label map', SEG, to.label_map(to.narrowed), 'is 60x64, its image 64x64', VAL
    ),
    *crashes(
        'label above the classes',
        SEG,
        to.label_map(to.relabelled(1, ANY_LABEL)),
        'has the label 5 after reduce_zero_label; 5 classes are labelled 0 to 4',
    ),
    *harms(
        'label above the classes',
        SEG,
        to.label_map(to.relabelled(1, ANY_LABEL)),
        'has the label 5',
        VAL,
    ),
    *crashes('RGB label map', SEG, to.label_map(to.converted('RGB')), 'has 3 channels'),
    *harms(
        'labels over 255',
        SEG,
        to.label_map(to.relabelled(1, 257, np.uint16)),
        'has values up to 257',
    ),
    *tolerated('16 bits label map', SEG, to.label_map(to.relabelled(1, 1, np.uint16))),
    *tolerated('palette label map', SEG, to.label_map(to.palette)),
    *tolerated('nothing but void', SEG, to.label_map(to.void)),
]
CLS = ('cls',)
LABEL_LISTS = [
    *crashes(
        'label above the classes',
        CLS,
        to.listing(lambda lines: [lines[0][:-1] + '4', *lines[1:]]),
        'has the label 4; 4 classes are labelled 0 to 3',
    ),
    *harms(
        'label above the classes',
        CLS,
        to.listing(lambda lines: [lines[0][:-1] + '4', *lines[1:]]),
        'has the label 4',
        VAL,
    ),
    *crashes(
        'missing image',
        CLS,
        to.listing(lambda lines: ['ring/absent.JPEG 0', *lines]),
        r'absent\.JPEG .*: is missing',
    ),
    *crashes('empty list', CLS, to.listing(lambda lines: []), 'no samples'),
    *crashes(
        'blank line in the list',
        CLS,
        to.listing(lambda lines: [*lines, '', '']),
        'the host cannot read it',
    ),
]
KINDS = [*IMAGES, *OBJECTS, *ANNOTATION_FILES, *LABEL_MAPS, *LABEL_LISTS]
