"""The conversions that docs/own-data.md names give annotations that the hosts take."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmcloformer.apis.config import read_config
from mmcloformer.checks.examine import check_dataset
from tests.conftest import ROOT, coco_options

PAGE = (ROOT / 'docs/own-data.md').read_text()
LINES = {
    words[words.index('--format') + 1]: words[1:]
    for words in map(shlex.split, re.findall(r'^globox .*', PAGE, re.M))
}


def write_yolo(images, boxes_of, classes):
    folder = Path('labels/train')
    folder.mkdir(parents=True)
    for image in images:
        lines = [
            f'{classes.index(name)} {(x + w / 2) / image["width"]} {(y + h / 2) / image["height"]} '
            f'{w / image["width"]} {h / image["height"]}'
            for name, (x, y, w, h) in boxes_of(image)
        ]
        Path(folder, image['file_name']).with_suffix('.txt').write_text('\n'.join(lines))
    Path('classes.txt').write_text('\n'.join(classes))


def write_voc(images, boxes_of, classes):
    Path('Annotations').mkdir()
    for image in images:
        objects = ''.join(
            f'<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>'
            f'<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
            for name, (x, y, w, h) in boxes_of(image)
        )
        size = f'<width>{image["width"]}</width><height>{image["height"]}</height><depth>3</depth>'
        Path('Annotations', image['file_name']).with_suffix('.xml').write_text(
            f'<annotation><folder>train</folder><filename>{image["file_name"]}</filename>'
            f'<path>{image["file_name"]}</path><size>{size}</size>{objects}</annotation>'
        )


@pytest.mark.parametrize(('kind', 'write'), [('yolov5', write_yolo), ('pascalvoc', write_voc)])
def test_a_converted_set_is_the_set(kind, write, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = shapes / 'coco'
    original = json.loads((root / 'annotations/instances_train2017.json').read_text())
    names = {category['id']: category['name'] for category in original['categories']}

    def boxes_of(image):
        return [
            (names[each['category_id']], each['bbox'])
            for each in original['annotations']
            if each['image_id'] == image['id']
        ]

    write(original['images'], boxes_of, sorted(names.values()))
    Path('annotations').mkdir()
    Path('images').mkdir()
    Path('images/train').symlink_to(root / 'train2017')
    globox = Path(sys.executable).with_name('globox')
    extension = ['--img_ext', '.png'] if kind == 'yolov5' else []
    subprocess.run([globox, *LINES[kind], *extension], check=True, capture_output=True)

    converted = json.loads(Path('annotations/train.json').read_text())
    assert len(converted['annotations']) == len(original['annotations'])
    options = dict(option.split('=') for option in coco_options(root))
    options['train_dataloader.dataset.ann_file'] = str(tmp_path / 'annotations/train.json')
    cfg = read_config(ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py', options)
    # The few scenes do not show every class.
    classes = [category['name'] for category in converted['categories']]
    cfg.train_dataloader.dataset.metainfo.classes = classes
    cfg.model.bbox_head.num_classes = len(classes)
    cfg.val_dataloader = cfg.test_dataloader = None
    assert check_dataset(cfg, workers=0).problems == []
