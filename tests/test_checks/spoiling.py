"""How to spoil the generated data, one file at a time.

`image` and `label_map` turn a function of a file, `annotations` one of a file's content, into one
of the host, the root of its data and the split; `turned` and `listing` are such functions.
"""

import io
import json

import numpy as np
from PIL import Image


def image(damage):
    """Of the first image, as the host sorts them."""

    def spoil(host, root, split):
        if host == 'seg':
            damage(root / 'images' / _ADE[split] / f'ADE_{split}_00000001.jpg')
        elif host == 'cls':
            damage(min((root / split).rglob('*.JPEG')))
        else:
            damage(root / f'{split}2017' / '000000000001.png')

    return spoil


def label_map(damage):
    """Of the first image."""

    def spoil(host, root, split):
        damage(root / 'annotations' / _ADE[split] / f'ADE_{split}_00000001.png')

    return spoil


def annotations(change):
    """Of the file in COCO's format."""

    def spoil(host, root, split):
        file = root / 'annotations' / f'instances_{split}2017.json'
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def annotation_text(text):
    def spoil(host, root, split):
        (root / 'annotations' / f'instances_{split}2017.json').write_text(text)

    return spoil


def listing(change):
    """Of mmpretrain's list of images and labels, which has no need to be there."""

    def spoil(host, root, split):
        folders = sorted(path.name for path in (root / split).iterdir())
        lines = [
            f'{path.relative_to(root / split)} {folders.index(path.parent.name)}'
            for path in sorted((root / split).rglob('*.JPEG'))
        ]
        (root / 'meta').mkdir()
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(change(lines)))

    return spoil


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
    """Noise inside, with what the decoder takes for the end of the picture."""
    content = _encoded(file, 'JPEG')
    middle = len(content) * 3 // 4
    file.write_bytes(content[:middle] + b'\xff\xd9' + content[middle + 2 :])


def noise_in_label_map(file):
    """Where Pillow does not look: the check sum of the pixels."""
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
    """Stored as 64x48, with a tag that asks for a quarter turn."""
    exif = Image.Exif()
    exif[0x112] = 6
    Image.open(file).convert('RGB').crop((0, 0, 64, 48)).save(file, 'JPEG', exif=exif)


def turned_and_annotated(host, root, split):
    """The annotation says 64x48, as stored."""
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


def first_image(**fields):
    return annotations(lambda content: content['images'][0].update(fields))


def move_objects(content):
    """From the first image to the second."""
    for each in content['annotations']:
        each['image_id'] = max(each['image_id'], 2)


def share_an_id(content):
    """The second image's, by the first."""
    content['images'][0]['id'] = 2
    move_objects(content)


def list_twice(content):
    content['images'].append(content['images'][0])


def decimal_ids(content):
    """As pandas writes them."""
    for each in content['annotations']:
        each.update(image_id=float(each['image_id']), category_id=float(each['category_id']))
