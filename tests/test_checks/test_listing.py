"""Text files that list images or names, and folders of which a host takes some files only."""

import codecs
import json
import re
import shutil
import subprocess

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from mmcloformer.checks.listing import decode_text, listing_problems, mark_fault
from mmcloformer.checks.presence import check_data
from mmcloformer.checks.problem import render
from mmcloformer.config import ConfigView
from mmcloformer.errors import DataError
from tests.conftest import ROOT, coco_options
from tests.spelling import SPELLINGS, spell

TEXT = 'ähre/1.jpg 0\nring/2.jpg 1\n'
ENCODINGS = ['utf-8-sig', 'utf-16', 'utf-16-be', 'utf-32', 'utf-32-be']


def encoded(encoding):
    mark = dict(zip(('utf-16-be', 'utf-32-be'), (codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)))
    return mark.get(encoding, b'') + TEXT.encode(encoding)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_the_command_that_is_advised_removes_the_mark(encoding, tmp_path):
    file = tmp_path / 'my list.txt'
    file.write_bytes(encoded(encoding))
    fault = mark_fault(encoded(encoding)[:4], str(file))
    assert decode_text(encoded(encoding), str(file)) == TEXT
    command = fault.remedy.partition(': ')[2]
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f'no {command.split()[0]}')
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    converted = tmp_path / 'NEW' if 'NEW' in command else file
    assert converted.read_bytes() == TEXT.encode()


def test_utf_8_has_no_problem():
    assert mark_fault(TEXT.encode()[:4], 'list.txt') is None
    assert mark_fault(b'', 'list.txt') is None
    assert decode_text(TEXT.encode(), 'list.txt') == TEXT


def test_another_encoding_without_a_mark():
    assert mark_fault(TEXT.encode('cp1252')[:4], 'list.txt') is None
    with pytest.raises(ValueError, match=r'not UTF-8 .* iconv -f WINDOWS-1252 -t UTF-8 list\.txt'):
        decode_text(TEXT.encode('cp1252'), 'list.txt')


@DATASETS.register_module()
class ReadsMarks(CustomDataset):
    """Lists its samples with code of its own."""

    def load_data_list(self):
        return [dict(img_path=line) for line in open(self.ann_file, encoding='utf-8-sig')]


@pytest.fixture
def root(tmp_path):
    for folder in ('images/below', 'maps/below'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / '1.png').touch()
    return tmp_path


def config(root, scope, **fields):
    prefix = dict(img_path='images', seg_map_path='maps')
    kinds = dict(mmseg='BaseSegDataset', mmpretrain='CustomDataset', mmdet='XMLDataset')
    dataset = dict(type=kinds[scope], data_root=str(root), ann_file='list.txt', data_prefix=prefix)
    if scope != 'mmseg':
        dataset['data_prefix'] = dict(img_path='images')
    dataset.update(fields)
    return Config(dict(default_scope=scope, train_dataloader=dict(dataset=dataset)))


LINES = dict(mmseg='below/1', mmpretrain='below/1.png 0', mmdet='below/1')


def problems(cfg):
    return render(listing_problems(ConfigView(cfg), ('train',)))


@pytest.mark.parametrize('scope', LINES)
def test_lists_of_every_host(scope, root):
    file, cfg = root / 'list.txt', config(root, scope)
    for whole in (LINES[scope], LINES[scope] + '\r\n', ''):  # As on Windows: the hosts strip it.
        file.write_bytes(whole.encode())
        assert problems(cfg) == []
    for encoding in ('utf-8-sig', 'utf-16'):
        file.write_text(LINES[scope], encoding=encoding)
        (problem,) = problems(cfg)
        assert f'{file} (train_dataloader.dataset.ann_file): ' in problem
        assert 'save it as UTF-8' in problem


def test_names_of_classes_and_other_formats(root):
    names = root / 'classes.txt'
    names.write_text('one\ntwo', encoding='utf-8-sig')
    (root / 'list.txt').write_text(LINES['mmpretrain'])
    for field in ('classes', 'metainfo.classes'):
        fields = dict(classes=str(names))
        cfg = config(root, 'mmpretrain', **fields if field == 'classes' else dict(metainfo=fields))
        (problem,) = problems(cfg)
        assert f'{names} (train_dataloader.dataset.{field}): begins with a byte-order' in problem
    listed = root / 'list.json'
    listed.write_text(json.dumps({}), encoding='utf-8-sig')
    (problem,) = problems(
        config(root, 'mmpretrain', type='MultiLabelDataset', ann_file='list.json')
    )
    assert 'byte-order mark' in problem
    # YAML may have one.
    (root / 'list.yaml').write_text('a: 1', encoding='utf-8-sig')
    assert (
        problems(config(root, 'mmpretrain', type='MultiLabelDataset', ann_file='list.yaml')) == []
    )


def test_what_is_not_read_by_a_hosts_own_code(root):
    (root / 'list.txt').write_text(LINES['mmpretrain'], encoding='utf-8-sig')
    assert problems(config(root, 'mmpretrain', type='ReadsMarks')) == []
    assert problems(config(root, 'mmpretrain', data_root='s3://bucket')) == []
    assert problems(config(root, 'mmpretrain', ann_file='')) == []


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
    cfg, folder = segmentation
    rename(folder.iterdir(), '.JPG', '.jpeg', '.png', '.png')
    (folder / 'notes.txt').touch()
    check_data(cfg, ('train',))
    samples, problems, warnings = examine(cfg)
    assert (samples['train'], problems) == (4, [])
    (warning,) = of_left_out(warnings)
    assert warning.startswith(
        f'train_dataloader.dataset: images are left out: 4 of 8 in {folder} (2 .png, 1 .JPG, '
        "1 .jpeg); the host takes only file names that end in '.jpg', with this case: set "
        'train_dataloader.dataset.img_suffix'
    )


@pytest.mark.parametrize('spelling', SPELLINGS)
@pytest.mark.parametrize('scope', LINES)
def test_lists_are_read_in_every_spelling_and_with_any_suffix(scope, spelling, root):
    name = config(root, scope).train_dataloader.dataset.type
    (root / 'images.csv').write_text(LINES[scope], encoding='utf-8-sig')
    cfg = config(root, scope, type=spell(scope, 'DATASETS', name, spelling), ann_file='images.csv')
    if spelling == 'itself':
        models = dict(mmdet='RetinaNet', mmseg='EncoderDecoder', mmpretrain='ImageClassifier')
        cfg.default_scope = None
        cfg.model = dict(type=spell(scope, 'MODELS', models[scope], spelling))
    (problem,) = listing_problems(ConfigView(cfg), ('train',))
    assert problem.field == 'train_dataloader.dataset.ann_file'


def test_what_is_left_out_is_an_image_by_its_content(segmentation, examine):
    cfg, folder = segmentation
    rename(folder.iterdir(), '.dat', '')
    (folder / 'notes.png').write_text('no image')
    (warning,) = of_left_out(examine(cfg)[2])
    assert '2 of 8' in warning
    assert '1 .dat, 1 without suffix' in warning


def test_mmseg_takes_none(segmentation, examine):
    cfg, folder = segmentation
    rename(folder.iterdir(), *['.JPG'] * 8)
    _, (problem,), _ = examine(cfg)
    assert re.search(r'no image is left: 8 of 8 .* \(8 \.JPG\).*img_suffix', problem)
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
    assert '.webp' in warning
    assert 'train_dataloader.dataset.extensions' in warning
    assert 'in folders of classes only' in warning


def test_mmpretrain_takes_none(classification, examine):
    cfg, folder = classification
    for file in [*folder.rglob('*.*')]:
        file.rename(file.with_suffix('.webp'))
    (problem,) = examine(cfg)[1]
    assert re.search(r'no image is left: .*\.webp\); .*extensions', problem)


def small_first(content, number):
    for image in content['images'][:number]:
        image.update(width=20, height=20)


@pytest.mark.parametrize('number', [1, 8])
def test_mmdets_smallest_size(detection, examine, number):
    """With a size that only the file has."""
    cfg, file = detection
    content = json.loads(file.read_text())
    small_first(content, number)
    for each in content['annotations']:
        each['bbox'] = [1, 1, 9, 9]
    file.write_text(json.dumps(content))
    words = rf'{number} of 8 images have a shorter side below filter_cfg\.min_size=32; set filter_'
    if number == 8:
        with pytest.raises(DataError, match=f'no image is left for training: {words}'):
            check_data(cfg, ('train', 'val'))
        assert 'no image is left for training' in examine(cfg)[1][0]
    else:
        check_data(cfg, ('train', 'val'))
        samples, _, warnings = examine(cfg)
        assert samples['train'] == 7
        assert 'filter_cfg.min_size=20 to keep them' in of_left_out(warnings)[0]


def test_mmdets_images_without_objects(detection, examine):
    cfg, file = detection
    content = json.loads(file.read_text())
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] > 2]
    file.write_text(json.dumps(content))
    samples, problems, warnings = examine(cfg)
    assert (samples['train'], problems) == (6, [])
    assert '2 of 8 images have no object of the classes' in of_left_out(warnings)[0]
    cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt = False
    samples, problems, warnings = examine(cfg)
    assert (samples['train'], problems, of_left_out(warnings)) == (8, [], [])


def test_the_tool_exits_with_0_after_warnings(detection, tool_main):
    _, file = detection
    content = json.loads(file.read_text())
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] > 2]
    file.write_text(json.dumps(content))
    output = tool_main(
        'check_dataset.py', ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py',
        '--workers', 0, '--cfg-options', *coco_options(file.parents[1]),
    )  # fmt: skip
    assert output.startswith(f'warning: {file} (train_dataloader.dataset): images are left')
    assert 'all 10 samples are good (train 6, val 4)' in output
    assert output.count('warning: ') >= 1
    assert 'listed above' in output
