"""Text files that list images or names, and folders of which a host takes some files only."""

import json
import re
import shutil

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset

from mmcloformer.checks.listing import listing_problems
from mmcloformer.checks.presence import check_data
from mmcloformer.config import ConfigView
from mmcloformer.errors import DataError
from tests.conftest import ROOT, coco_options
from tests.spelling import SPELLINGS, spell

LINES = dict(mmseg='below/1', mmpretrain='below/1.png 0', mmdet='below/1')
KINDS = dict(mmseg='BaseSegDataset', mmpretrain='CustomDataset', mmdet='XMLDataset')
MODELS = dict(mmdet='RetinaNet', mmseg='EncoderDecoder', mmpretrain='ImageClassifier')
FIELD = 'train_dataloader.dataset'


class ReadsMarks(CustomDataset):
    """Lists its samples with code of its own."""

    def load_data_list(self):
        return [dict(img_path=line) for line in open(self.ann_file, encoding='utf-8-sig')]


@pytest.fixture
def problems(tmp_path):
    """Return a function from the fields of a data set to the fields and texts of its problems."""

    def problems(host='mmpretrain', spelling='name', **fields):
        model = dict(type=spell(host, 'MODELS', MODELS[host], spelling))
        kind = spell(host, 'DATASETS', KINDS[host], spelling)
        dataset = dict(type=kind, data_root=str(tmp_path), ann_file='list.csv') | fields
        scope = None if spelling == 'itself' else host
        loader = dict(dataset=dataset)
        cfg = Config(dict(default_scope=scope, model=model, train_dataloader=loader))
        found = [*listing_problems(ConfigView(cfg), ('train',))]
        assert all('save it as UTF-8' in each.remedy for each in found)
        return [each.field.removeprefix(f'{FIELD}.') for each in found]

    return problems


@pytest.mark.parametrize('host', LINES)
def test_lists_of_every_host(host, problems, tmp_path):
    file = tmp_path / 'list.csv'
    for whole in (LINES[host], LINES[host] + '\r\n', ''):  # As on Windows: the hosts strip it.
        file.write_bytes(whole.encode())
        assert problems(host) == []
    for encoding in ('utf-8-sig', 'utf-16', 'utf-32'):
        file.write_text(LINES[host], encoding=encoding)
        assert problems(host) == ['ann_file']
    for spelling in SPELLINGS:
        assert problems(host, spelling) == ['ann_file']


def test_names_of_classes_and_other_formats(problems, tmp_path):
    for name in ('classes.txt', 'list.json', 'list.yaml'):
        (tmp_path / name).write_text('{}', encoding='utf-8-sig')
    names = dict(classes=f'{tmp_path}/classes.txt')
    assert problems(**names) == ['classes']
    assert problems(metainfo=names) == ['metainfo.classes']
    assert problems(type='MultiLabelDataset', ann_file='list.json') == ['ann_file']
    assert problems(type='MultiLabelDataset', ann_file='list.yaml') == []  # YAML may have one.


def test_what_is_not_read_by_a_hosts_own_code(problems, tmp_path):
    (tmp_path / 'list.csv').write_text(LINES['mmpretrain'], encoding='utf-8-sig')
    assert problems(type=ReadsMarks) == []
    assert problems(data_root='s3://bucket') == []
    assert problems(ann_file='') == []


@pytest.fixture
def segmentation(scenes):
    cfg, root = scenes('mmseg')
    return cfg, root / 'images' / 'training'


@pytest.fixture
def classification(scenes):
    cfg, root = scenes('mmpretrain')
    return cfg, root / 'train'


@pytest.fixture
def detection(scenes):
    cfg, root = scenes('mmdet')
    return cfg, root / 'annotations' / 'instances_train2017.json'


def rename(files, *suffixes):
    for file, suffix in zip(sorted(files), suffixes, strict=False):
        file.rename(file.with_suffix(suffix))


def of_left_out(warnings):
    return [warning for warning in warnings if 'left out' in warning or 'leaves' in warning]


def test_mmseg_takes_one_suffix(segmentation, examine):
    """What is left out is an image by its content."""
    cfg, folder = segmentation
    rename(folder.iterdir(), '.JPG', '', '.png', '.png')
    (folder / 'notes.txt').touch()
    (folder / 'notes.png').write_text('no image')
    check_data(cfg, ('train',))
    samples, problems, warnings = examine(cfg)
    assert (samples['train'], problems) == (4, [])
    (warning,) = of_left_out(warnings)
    assert warning.startswith(f'{FIELD}: images are left out: 4 of 8 in {folder} (2 .png, 1 .JPG,')
    assert '1 without suffix' in warning
    assert f'set {FIELD}.img_suffix' in warning


def test_mmseg_takes_none(segmentation, examine):
    cfg, folder = segmentation
    rename(folder.iterdir(), *['.JPG'] * 8)
    _, (problem,), _ = examine(cfg)
    assert re.search(r'no image is left: 8 of 8 .* \(8 \.JPG\).*img_suffix', problem)
    with pytest.raises(DataError, match='no image is left'):
        check_data(cfg, ('train',))
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.img_suffix = '.JPG' if split == 'train' else '.jpg'
    assert examine(cfg)[1] == []


def test_label_maps_beside_the_images_are_no_images(segmentation, examine):
    cfg, folder = segmentation
    for label_map in (folder.parents[1] / 'annotations' / 'training').iterdir():
        label_map.rename(folder / label_map.name)
    cfg.train_dataloader.dataset.data_prefix.seg_map_path = 'images/training'
    samples, problems, warnings = examine(cfg)
    assert (samples['train'], problems, of_left_out(warnings)) == (8, [], [])


def test_a_list_of_images_leaves_out_what_it_is_meant_to(segmentation, examine):
    cfg, folder = segmentation
    rename(folder.iterdir(), '.png')
    names = sorted(path.stem for path in folder.glob('*.jpg'))
    (folder.parents[1] / 'list.txt').write_text('\n'.join(names))
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    samples, problems, warnings = examine(cfg)
    assert (samples['train'], problems, of_left_out(warnings)) == (7, [], [])


def test_mmpretrain_takes_its_extensions_in_folders_of_classes(classification, examine):
    cfg, folder = classification
    ring, star = folder / 'ring', folder / 'star'
    rename(ring.iterdir(), '.webp')
    rename(star.iterdir(), '.PNG')  # Taken.
    shutil.copy(next(star.iterdir()), folder / 'beside.png')
    samples, problems, warnings = examine(cfg)
    assert not problems
    (warning,) = of_left_out(warnings)
    assert f'2 of {samples["train"] + 2} in {folder}' in warning
    assert f'{FIELD}.extensions), in folders of classes only' in warning
    for file in [*folder.rglob('*.*')]:
        file.rename(file.with_suffix('.webp'))
    (problem,) = examine(cfg)[1]
    assert re.search(r'no image is left: .*\.webp\); .*extensions', problem)


def test_mmdets_images_without_objects(detection, examine, tool_main):
    cfg, file = detection
    content = json.loads(file.read_text())
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] > 2]
    file.write_text(json.dumps(content))
    output = tool_main(
        'check_dataset.py', ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py',
        '--workers', 0, '--cfg-options', *coco_options(file.parents[1]),
    )  # fmt: skip
    assert output.startswith(f'warning: {FIELD}: 2 of 8 samples are left out by filter_cfg=')
    assert 'all 10 samples are good (train 6, val 4)' in output
    cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt = False
    samples, problems, warnings = examine(cfg)
    assert (samples['train'], problems, of_left_out(warnings)) == (8, [], [])
