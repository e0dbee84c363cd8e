import json

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from mmcloformer.checks.lists import check_lists, list_problems
from mmcloformer.checks.presence import check_data
from mmcloformer.errors import DataError


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
    return list(list_problems(cfg, 'train', cfg.train_dataloader.dataset))


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
    file.write_bytes('ähre/1.png'.encode('cp1252'))
    assert 'not UTF-8' in problems(cfg)[0]
    file.write_text(LINES[scope].replace('/', '\\'))
    (problem,) = problems(cfg)
    assert '1 paths have back-slashes, the first is below\\1' in problem
    assert f"sed -i 's#\\\\#/#g' {file}" in problem
    with pytest.raises(DataError, match='back-slashes'):
        check_lists(cfg, ('train',))


@pytest.mark.parametrize('scope', LINES)
def test_a_file_whose_name_has_a_back_slash(scope, root):
    (root / 'images' / 'below\\1.png').touch()
    (root / 'list.txt').write_text(LINES[scope].replace('/', '\\'))
    assert problems(config(root, scope)) == []


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
    (problem,) = problems(config(root, 'mmpretrain', ann_file='list.json'))
    assert 'byte-order mark' in problem
    # YAML may have one.
    (root / 'list.yaml').write_text('a: 1', encoding='utf-8-sig')
    assert problems(config(root, 'mmpretrain', ann_file='list.yaml')) == []


def test_what_is_not_read_by_a_hosts_own_code(root):
    (root / 'list.txt').write_text(LINES['mmpretrain'], encoding='utf-8-sig')
    assert problems(config(root, 'mmpretrain', type='ReadsMarks')) == []
    assert problems(config(root, 'mmpretrain', data_root='s3://bucket')) == []
    assert problems(config(root, 'mmpretrain', ann_file='')) == []


def test_the_file_of_an_evaluator_is_checked_before_training(root):
    (root / 'list.txt').write_text('')
    file = root / 'val.json'
    file.write_text('{}')
    cfg = config(root, 'mmdet')
    cfg.train_evaluator = dict(type='CocoMetric', ann_file=str(file))
    check_data(cfg, ('train',))
    file.write_text('{}', encoding='utf-8-sig')
    with pytest.raises(DataError, match=r'val\.json \(train_evaluator\.ann_file\): begins'):
        check_data(cfg, ('train',))
