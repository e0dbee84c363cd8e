"""Corruptions of the generated data, each of one file.

A corruption is a function of (host, root of its data, split). `image` and `label_map` make one
from a function of a file, `annotations` from a function of the content of a COCO file, and
`listing` from a function of the lines of an mmpretrain annotation file.
"""

import io
import json

import numpy as np
from PIL import Image


def image(damage):
    """Damage the first image, in the order of the host."""

    def corrupt(host, root, split):
        if host == 'seg':
            damage(root / 'images' / _ADE[split] / f'ADE_{split}_00000001.jpg')
        elif host == 'cls':
            damage(min((root / split).rglob('*.JPEG')))
        else:
            damage(root / f'{split}2017' / '000000000001.png')

    return corrupt


def label_map(damage):
    """Damage the label map of the first image."""

    def corrupt(host, root, split):
        damage(root / 'annotations' / _ADE[split] / f'ADE_{split}_00000001.png')

    return corrupt


def annotations(change):
    """Change the COCO file."""

    def corrupt(host, root, split):
        file = root / 'annotations' / f'instances_{split}2017.json'
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return corrupt


def annotation_text(text):
    def corrupt(host, root, split):
        (root / 'annotations' / f'instances_{split}2017.json').write_text(text)

    return corrupt


def listing(change):
    """Write and change mmpretrain's list of images and labels, which is optional."""

    def corrupt(host, root, split):
        folders = sorted(path.name for path in (root / split).iterdir())
        lines = [
            f'{path.relative_to(root / split)} {folders.index(path.parent.name)}'
            for path in sorted((root / split).rglob('*.JPEG'))
        ]
        (root / 'meta').mkdir()
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(change(lines)))

    return corrupt


_ADE = dict(train='training', val='validation')


def _encoded(file, kind):
    content = io.BytesIO()
    Image.open(file).convert('RGB').save(content, kind)
    return content.getvalue()


def empty(file):
    file.write_bytes(b'')


def missing(file):
    file.unlink()


def text(file):
    file.write_text('<html>404</html>')


def cut(kind):
    def damage(file):
        content = _encoded(file, kind)
        file.write_bytes(content[: len(content) // 2])

    return damage


def early_end(file):
    """Put an end marker inside the picture."""
    content = _encoded(file, 'JPEG')
    middle = len(content) * 3 // 4
    file.write_bytes(content[:middle] + b'\xff\xd9' + content[middle + 2 :])


def noise_in_label_map(file):
    """Change the checksum of the pixels, which Pillow does not verify."""
    content = bytearray(file.read_bytes())
    content[content.index(b'IEND') - 5] ^= 1
    file.write_bytes(content)


def converted(mode, kind='PNG'):
    def damage(file):
        Image.open(file).convert(mode).save(file, kind)

    return damage


def as_16_bit(file):
    grey = np.asarray(Image.open(file).convert('L'))
    Image.fromarray(grey.astype(np.uint16) * 257).save(file, 'PNG')


def turned(file):
    """Store the image as 64x48, with an EXIF tag for a rotation by 90 degrees."""
    exif = Image.Exif()
    exif[0x112] = 6
    Image.open(file).convert('RGB').crop((0, 0, 64, 48)).save(file, 'JPEG', exif=exif)


def turned_and_annotated(host, root, split):
    """Annotate the image with its stored size, 64x48."""
    image(turned)(host, root, split)

    def change(content):
        content['images'][0].update(height=48)

    annotations(change)(host, root, split)


def narrowed(file):
    Image.open(file).crop((0, 0, 60, 64)).save(file)


def palette(file):
    grey = Image.open(file)
    grey.putpalette([level for index in range(256) for level in (index, 255 - index, 0)])
    grey.save(file)


def relabelled(old, new, dtype=np.uint8):
    def damage(file):
        labels = np.asarray(Image.open(file)).astype(dtype)
        labels[labels == old] = new
        Image.fromarray(labels).save(file)

    return damage


def void(file):
    Image.fromarray(np.zeros_like(Image.open(file))).save(file)


def first(**fields):
    return annotations(lambda content: content['annotations'][0].update(fields))


def every(**fields):
    return annotations(lambda content: [each.update(fields) for each in content['annotations']])


def without(key):
    return annotations(lambda content: content['annotations'][0].pop(key))


def move_objects(content):
    """Move the objects of the first image to the second."""
    for each in content['annotations']:
        each['image_id'] = max(each['image_id'], 2)


def share_an_id(content):
    """Give the first image the id of the second."""
    content['images'][0]['id'] = 2
    move_objects(content)


def list_twice(content):
    content['images'].append(content['images'][0])


def decimal_ids(content):
    """Write ids as floats, as pandas does."""
    for each in content['annotations']:
        each.update(image_id=float(each['image_id']), category_id=float(each['category_id']))
