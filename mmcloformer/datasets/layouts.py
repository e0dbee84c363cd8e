"""Writers of scenes in the folder layouts of COCO, ADE20K and ImageNet."""

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from .shapes import CLASSES, Instance, Scene

_JPEG_QUALITY = 95
_CROP_MARGIN = 0.15  # of the object's longer side, on either side


class Writer(Protocol):
    """Writes one split of a data set, scene by scene."""

    def __init__(self, root: Path, split: str) -> None:
        """Make the folders of one split.

        Args:
            root: Top folder of the layout; created if missing.
            split: `'train'` or `'val'`.
        """

    def add(self, scene: Scene) -> None:
        """Write the next scene.

        Args:
            scene: The scene.
        """

    def close(self) -> None:
        """Write the files that need all scenes."""


class CocoWriter:
    """COCO: `{split}2017/*.png` and `annotations/instances_{split}2017.json`.

    Masks are stored as compressed run lengths, which keep holes and separated parts exact.
    Category k + 1 is class k.
    """

    def __init__(self, root: Path, split: str) -> None:
        self._images_folder = root / f'{split}2017'
        self._images_folder.mkdir(parents=True)
        self._json_file = root / 'annotations' / f'instances_{split}2017.json'
        self._json_file.parent.mkdir(exist_ok=True)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, scene: Scene) -> None:
        image_id = len(self._images) + 1
        name = f'{image_id:012d}.png'
        Image.fromarray(scene.image).save(self._images_folder / name)
        height, width = scene.image.shape[:2]
        self._images.append({'id': image_id, 'file_name': name, 'height': height, 'width': width})
        for instance in scene.instances:
            annotation_id = len(self._annotations) + 1
            self._annotations.append(
                {'id': annotation_id, 'image_id': image_id, **_coco_fields(instance)}
            )

    def close(self) -> None:
        content = {
            'info': {'description': 'mmcloformer shapes'},
            'licenses': [],
            'categories': [
                {'id': i + 1, 'name': name, 'supercategory': 'shape'}
                for i, name in enumerate(CLASSES)
            ],
            'images': self._images,
            'annotations': self._annotations,
        }
        self._json_file.write_text(json.dumps(content))


class Ade20kWriter:
    """ADE20K: `images/{training,validation}/*.jpg` and `annotations/.../*.png` of 8 bits.

    Value 0 is ADE20K's "void", which `reduce_zero_label` drops; no pixel here has it. The ground
    is 1 and class k is k + 2, so after the reduction the labels index `SEG_METAINFO`.
    """

    def __init__(self, root: Path, split: str) -> None:
        folder = {'train': 'training', 'val': 'validation'}[split]
        self._images_folder = root / 'images' / folder
        self._labels_folder = root / 'annotations' / folder
        self._images_folder.mkdir(parents=True)
        self._labels_folder.mkdir(parents=True)
        self._stem = f'ADE_{split}'
        self._count = 0

    def add(self, scene: Scene) -> None:
        self._count += 1
        name = f'{self._stem}_{self._count:08d}'
        _save_jpeg(scene.image, self._images_folder / f'{name}.jpg')
        labels = np.ones(scene.image.shape[:2], np.uint8)
        for instance in scene.instances:
            labels[instance.mask] = instance.label + 2
        Image.fromarray(labels).save(self._labels_folder / f'{name}.png')

    def close(self) -> None:
        pass


class ImageNetWriter:
    """ImageNet: `{split}/CLASS/*.JPEG`, each a crop around one object.

    An object gets no crop if the crop would show more of another object, as its label would be
    ambiguous.
    """

    def __init__(self, root: Path, split: str) -> None:
        # A folder without images still counts in the numbering of the classes.
        self._folders = [root / split / name for name in CLASSES]
        for folder in self._folders:
            folder.mkdir(parents=True)
        self._split = split
        self._count = 0

    def add(self, scene: Scene) -> None:
        for instance in scene.instances:
            window = _crop_window(instance)
            seen = [int(other.mask[window].sum()) for other in scene.instances]
            if max(seen) > instance.area:
                continue
            self._count += 1
            name = f'shapes_{self._split}_{self._count:08d}.JPEG'
            _save_jpeg(scene.image[window], self._folders[instance.label] / name)

    def close(self) -> None:
        pass


LAYOUTS: dict[str, type[Writer]] = {
    'coco': CocoWriter,
    'ade20k': Ade20kWriter,
    'imagenet': ImageNetWriter,
}


def _coco_fields(instance: Instance) -> dict[str, Any]:
    x1, y1, x2, y2 = instance.bbox
    runs = coco_mask.encode(np.asfortranarray(instance.mask, np.uint8))
    return {
        'category_id': instance.label + 1,
        'bbox': [x1, y1, x2 - x1, y2 - y1],
        'area': instance.area,
        'iscrowd': 0,
        'segmentation': {'size': runs['size'], 'counts': runs['counts'].decode('ascii')},
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
    Image.fromarray(image).save(path, format='JPEG', quality=_JPEG_QUALITY)
