"""Writes scenes in the folder layouts of COCO, ADE20K and ImageNet.

Each function writes one split, `'train'` or `'val'`, into the top folder of its layout.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from .shapes import CLASSES, Instance, Scene

_CROP_MARGIN = 0.15  # of the object's longer side, on either side


def write_coco(root: Path, split: str, scenes: Sequence[Scene]) -> None:
    """Write `{split}2017/*.png` and `annotations/instances_{split}2017.json`.

    Masks are stored as compressed run lengths, which keep holes and separated parts exact.
    Category k + 1 is class k.
    """
    folder, labels = root / f'{split}2017', root / 'annotations'
    folder.mkdir(parents=True)
    labels.mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, scene in enumerate(scenes, 1):
        name = f'{image_id:012d}.png'
        Image.fromarray(scene.image).save(folder / name)
        height, width = scene.image.shape[:2]
        images.append({'id': image_id, 'file_name': name, 'height': height, 'width': width})
        for instance in scene.instances:
            x1, y1, x2, y2 = instance.bbox
            runs = coco_mask.encode(np.asfortranarray(instance.mask, np.uint8))
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': instance.label + 1,
                    'bbox': [x1, y1, x2 - x1, y2 - y1],
                    'area': instance.area,
                    'iscrowd': 0,
                    'segmentation': {**runs, 'counts': runs['counts'].decode('ascii')},
                }
            )
    categories = [
        {'id': number, 'name': name, 'supercategory': 'shape'}
        for number, name in enumerate(CLASSES, 1)
    ]
    content = {
        'info': {'description': 'mmcloformer shapes'},
        'licenses': [],
        'categories': categories,
        'images': images,
        'annotations': annotations,
    }
    (labels / f'instances_{split}2017.json').write_text(json.dumps(content))


def write_ade20k(root: Path, split: str, scenes: Sequence[Scene]) -> None:
    """Write `images/{training,validation}/*.jpg` and `annotations/.../*.png` of 8 bits.

    Value 0 is ADE20K's "void", which `reduce_zero_label` drops; no pixel here has it. The ground
    is 1 and class k is k + 2, so after the reduction the labels index `SEG_METAINFO`.
    """
    part = {'train': 'training', 'val': 'validation'}[split]
    images, annotations = root / 'images' / part, root / 'annotations' / part
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for number, scene in enumerate(scenes, 1):
        name = f'ADE_{split}_{number:08d}'
        _save_jpeg(scene.image, images / f'{name}.jpg')
        labels = np.ones(scene.image.shape[:2], np.uint8)
        for instance in scene.instances:
            labels[instance.mask] = instance.label + 2
        Image.fromarray(labels).save(annotations / f'{name}.png')


def write_imagenet(root: Path, split: str, scenes: Sequence[Scene]) -> None:
    """Write `{split}/CLASS/*.JPEG`, each a crop around one object.

    An object gets no crop if the crop would show more of another object, as its label would be
    ambiguous.
    """
    for name in CLASSES:  # A folder without images still counts in the numbering of the classes.
        (root / split / name).mkdir(parents=True)
    count = 0
    for scene in scenes:
        for instance in scene.instances:
            window = _crop_window(instance)
            if max(int(other.mask[window].sum()) for other in scene.instances) <= instance.area:
                count += 1
                name = f'{CLASSES[instance.label]}/shapes_{split}_{count:08d}.JPEG'
                _save_jpeg(scene.image[window], root / split / name)


LAYOUTS: dict[str, Callable[[Path, str, Sequence[Scene]], None]] = {
    'coco': write_coco,
    'ade20k': write_ade20k,
    'imagenet': write_imagenet,
}


def _crop_window(instance: Instance) -> tuple[slice, slice]:
    """Return rows and columns of a square around an object, shifted and cropped to the image."""
    x1, y1, x2, y2 = instance.bbox
    longest = max(x2 - x1, y2 - y1)
    side = min(round(longest * (1 + 2 * _CROP_MARGIN)), *instance.mask.shape)
    top, left = (
        min(max((low + high - side) // 2, 0), extent - side)
        for low, high, extent in zip((y1, x1), (y2, x2), instance.mask.shape, strict=True)
    )
    return slice(top, top + side), slice(left, left + side)


def _save_jpeg(image: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(image).save(path, format='JPEG', quality=95)
