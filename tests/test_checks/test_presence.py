from glob import glob
from pathlib import Path

import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmengine.config import Config

from mmcloformer.checks.presence import check_data, check_present, missing_files
from mmcloformer.config import ConfigView
from mmcloformer.errors import DataError
from tests.conftest import ROOT
from tests.spelling import SPELLINGS, spell


@pytest.fixture
def root(tmp_path):
    for name in ('train', 'val', 'annotations'):
        (tmp_path / name).mkdir()
    for name in ('train', 'val'):
        (tmp_path / 'annotations' / f'{name}.json').touch()
    return tmp_path


def dataset(root, split='train', **fields):
    file, folder = f'annotations/{split}.json', dict(img=f'{split}/')
    common = dict(type='CocoDataset', data_root=str(root), ann_file=file, data_prefix=folder)
    return common | fields


def missing(*datasets, scope='mmdet', **fields):
    """Fields whose files are missing, for a training set or for training and validation sets."""
    loaders = {
        f'{split}_dataloader': dict(dataset=each)
        for split, each in zip(('train', 'val'), datasets, strict=False)
    }
    view = ConfigView(Config(dict(default_scope=scope) | loaders | fields))
    return [problem.field for problem in missing_files(view, ('train', 'val'))]


def test_each_missing_file_is_named_once(root):
    several = dict(type='ConcatDataset', datasets=[dataset(root), dataset(root)])
    sets = [dict(type='RepeatDataset', times=2, dataset=several), dataset(root, 'val')]
    assert missing(*sets) == []
    (root / 'annotations' / 'train.json').unlink()
    (root / 'val').rmdir()
    assert missing(*sets) == [
        'train_dataloader.dataset.dataset.datasets.0.ann_file',
        'val_dataloader.dataset.data_prefix',
    ]


@pytest.mark.parametrize('fields', [{}, dict(lazy_init=True)])
def test_a_missing_root_is_one_problem(tmp_path, fields):
    found = missing(dataset(tmp_path / 'absent', **fields))
    assert found == ['train_dataloader.dataset.data_root']


class OwnMetric(CocoMetric):
    """Reads its annotations from elsewhere."""


class OwnDataset(CocoDataset):
    """Takes a pattern for its files."""

    def load_data_list(self):
        return [dict(img_path=path) for path in glob(self.ann_file)]


class OwnInit(CocoDataset):
    """Lists its samples in another way."""

    def full_init(self):
        self.data_list = []


class RenamedDataset(CocoDataset):
    """Has classes of its own."""


def test_an_evaluators_own_file(root):
    ours = dict(type='CocoMetric', ann_file=f'{root}/other.json')
    assert missing(val_evaluator=[ours, dict(type='LoopMetric')]) == ['val_evaluator.0.ann_file']
    assert missing(val_evaluator=dict(ours, type=OwnMetric)) == []


def test_what_the_users_own_code_reads_is_left_to_it(root):
    absent = dict(ann_file='annotations/*.txt', data_prefix=dict(img='{split}'))
    for kind in (OwnDataset, OwnInit):
        assert missing(dataset(root, type=kind, **absent)) == []
    field = 'train_dataloader.dataset.'
    found = missing(dataset(root, type=RenamedDataset, **absent))
    assert found == [f'{field}ann_file', f'{field}data_prefix']


@pytest.mark.parametrize(
    'fields',
    [
        dict(data_root='s3://bucket/coco'),
        dict(ann_file='s3://bucket/elsewhere.json'),
        dict(data_root='absent', backend_args=dict(backend='petrel')),
    ],
)
def test_other_back_ends_are_left_to_the_host(root, fields):
    assert missing(dataset(root, **fields)) == []


class OwnLoader(LoadImageFromFile):
    """Reads images from elsewhere."""


@pytest.mark.parametrize(
    ('step', 'is_known'),
    [
        (dict(type='LoadImageFromFile', backend_args=None), True),
        (dict(type='LoadImageFromFile', backend_args=dict(backend='lmdb', db_path='a')), False),
        (dict(type=OwnLoader), False),
    ],
)
def test_images_that_a_step_reads_from_elsewhere_need_no_folder(root, step, is_known):
    steps = dict(pipeline=[step, dict(type='Resize'), dict(type=OwnLoader)])
    found = missing(dataset(root, data_prefix=dict(img='absent'), **steps))
    assert found == ['train_dataloader.dataset.data_prefix'] * is_known
    found = missing(dataset(root, ann_file='absent.json', **steps))
    assert found == ['train_dataloader.dataset.ann_file']


@pytest.mark.parametrize('loader', ['LoadAnnotations', 'LoadBiomedicalAnnotation', None])
def test_label_maps_that_are_not_loaded_need_no_folder(root, loader):
    is_loaded = loader is not None
    steps = [dict(type='LoadImageFromFile'), *[dict(type=loader)] * is_loaded]
    folders = dict(img_path='train', seg_map_path='labels')
    settings = dict(type='BaseSegDataset', data_root=str(root), data_prefix=folders, pipeline=steps)
    assert missing(settings, scope='mmseg') == ['train_dataloader.dataset.data_prefix'] * is_loaded


@pytest.mark.parametrize('with_seg', [False, True])
def test_label_maps_of_detectors_are_loaded_where_the_step_says_so(root, with_seg):
    """As in the host's config of Mask2Former for instances, which inherits the folder."""
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_seg=with_seg)]
    found = missing(dataset(root, data_prefix=dict(img='train', seg='absent'), pipeline=steps))
    assert found == ['train_dataloader.dataset.data_prefix'] * with_seg


def test_a_root_may_be_a_path(root):
    assert missing(dataset(root, data_root=root)) == []
    assert missing(dataset(root, data_root=root / 'absent')) == [
        'train_dataloader.dataset.data_root'
    ]


def test_a_root_that_absolute_paths_override_need_not_exist(root):
    absolute = dict(ann_file=f'{root}/annotations/train.json', data_prefix=dict(img=f'{root}/val'))
    assert missing(dataset('absent/', **absolute)) == []
    absolute['data_prefix'] = dict(img='')
    assert missing(dataset('absent/', **absolute)) == ['train_dataloader.dataset.data_root']


@pytest.mark.parametrize('spelling', SPELLINGS)
@pytest.mark.parametrize(
    ('name', 'fields', 'field'),
    [
        ('CustomDataset', dict(data_prefix='val'), None),
        ('CustomDataset', dict(data_prefix='validation'), 'data_prefix'),
        ('ImageNet', dict(split='train'), None),
        ('ImageNet', dict(split='test'), 'data_prefix'),
        ('CIFAR10', dict(split='train', data_root='absent'), None),  # Downloads itself.
        ('CIFAR10', dict(split='train', data_root='absent', download=False), 'data_root'),
    ],
)
def test_the_data_set_itself_says_where_it_looks(root, spelling, name, fields, field):
    kind = spell('mmpretrain', 'DATASETS', name, spelling)
    found = missing(dict(type=kind, data_root=str(root)) | fields, scope='mmpretrain')
    assert found == ([f'train_dataloader.dataset.{field}'] if field else [])


@pytest.mark.parametrize('name', ['semantic-fpn_cloformer_xs_ade20k', 'cloformer_xs_imagenet'])
def test_the_configs_own_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    folders = {
        'mmseg': [
            f'data/ade/ADEChallengeData2016/{kind}/{split}'
            for kind in ('images', 'annotations')
            for split in ('training', 'validation')
        ],
        'mmpretrain': ['data/imagenet/train', 'data/imagenet/val'],
    }[cfg.default_scope]
    with pytest.raises(DataError, match='data_root'):
        check_present(cfg, ('train', 'val'))
    for folder in folders:
        Path(folder).mkdir(parents=True)
    check_data(cfg, ('train', 'val'))
