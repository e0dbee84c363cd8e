from pathlib import Path

import pytest
from mmengine.config import Config

from mmcloformer.checks.presence import check_data, check_present
from mmcloformer.errors import DataError
from tests.conftest import ROOT


@pytest.fixture
def root(tmp_path):
    for name in ('train', 'val', 'annotations'):
        (tmp_path / name).mkdir()
    for name in ('train', 'val'):
        (tmp_path / 'annotations' / f'{name}.json').touch()
    return tmp_path


def config(root, wrap=lambda dataset: dataset):
    def loader(split):
        return dict(
            dataset=wrap(
                dict(
                    data_root=str(root),
                    ann_file=f'annotations/{split}.json',
                    data_prefix=dict(img=f'{split}/'),
                )
            )
        )

    evaluator = dict(ann_file=f'{root}/annotations/val.json')
    return Config(
        dict(
            train_dataloader=loader('train'), val_dataloader=loader('val'), val_evaluator=evaluator
        )
    )


WRAPPERS = [
    lambda dataset: dataset,
    lambda dataset: dict(type='RepeatDataset', times=2, dataset=dataset),
    lambda dataset: dict(type='ConcatDataset', datasets=[dataset, dataset]),
]


@pytest.mark.parametrize('wrap', WRAPPERS)
def test_what_is_there_passes_and_what_is_not_is_listed(root, wrap):
    cfg = config(root, wrap)
    check_data(cfg, ('train', 'val', 'test'))
    (root / 'annotations' / 'train.json').unlink()
    (root / 'val').rmdir()
    check_data(cfg, ('test',))
    with pytest.raises(DataError) as error:
        check_data(cfg, ('train', 'val'))
    message = str(error.value)
    assert f'{root}/annotations/train.json  (train_dataloader.dataset.data_root)' in message
    assert f'{root}/val  (val_dataloader.dataset.data_root)' in message
    assert f'{root}/train ' not in message


def test_an_evaluators_own_file(root):
    cfg = config(root)
    cfg.val_evaluator = [dict(ann_file=f'{root}/other.json'), dict(type='LoopMetric')]
    with pytest.raises(DataError, match=r'other\.json  \(val_evaluator\.ann_file\)'):
        check_data(cfg, ('val',))


def test_other_back_ends_and_absolute_paths_are_left_to_the_host(root):
    cfg = config('s3://bucket/coco')
    check_data(cfg, ('train', 'val'))
    cfg = config(root)
    cfg.train_dataloader.dataset.ann_file = 's3://bucket/elsewhere.json'
    check_data(cfg, ('train',))
    cfg.train_dataloader.dataset.ann_file = str(root / 'annotations' / 'val.json')
    check_data(cfg, ('train',))


def test_a_prefix_that_is_a_string(root):
    """As mmpretrain's data sets have it."""
    cfg = Config(dict(val_dataloader=dict(dataset=dict(data_root=str(root), data_prefix='val'))))
    check_data(cfg, ('val',))
    cfg.val_dataloader.dataset.data_prefix = 'validation'
    with pytest.raises(DataError, match='validation'):
        check_data(cfg, ('val',))


def test_a_split_names_its_folder(root):
    """As mmpretrain's ImageNet has it."""
    dataset = dict(type='ImageNet', data_root=str(root), split='train')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    check_data(cfg, ('train',))
    (root / 'train').rmdir()
    with pytest.raises(DataError, match=f'{root}/train'):
        check_data(cfg, ('train',))


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
    with pytest.raises(DataError) as error:
        check_data(cfg, ('train', 'val'))
    for folder in folders:
        assert f'  {folder}  (' in str(error.value)
        Path(folder).mkdir(parents=True)
    check_data(cfg, ('train', 'val'))


def test_a_root_that_absolute_paths_override_need_not_exist(tmp_path):
    file, folder = tmp_path / 'file.json', tmp_path / 'images'
    file.touch()
    folder.mkdir()
    dataset = dict(
        data_root='absent/', ann_file=str(file), data_prefix=dict(img=str(folder)), type='Any'
    )
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    check_present(cfg, ('train',))
    dataset['data_prefix'] = dict(img='')
    with pytest.raises(DataError, match='absent'):
        check_present(Config(dict(train_dataloader=dict(dataset=dataset))), ('train',))


@pytest.mark.parametrize(
    'dataset',
    [
        dict(type='CIFAR10', data_root='absent', split='train'),  # Downloads itself.
        dict(type='CocoDataset', data_root='absent', backend_args=dict(backend='petrel')),
    ],
)
def test_what_is_not_on_this_machine_is_left_to_the_host(dataset):
    check_present(Config(dict(train_dataloader=dict(dataset=dataset))), ('train',))


def test_only_imagenet_has_a_folder_per_split(tmp_path):
    dataset = dict(type='CUB', data_root=str(tmp_path), split='train')
    check_present(Config(dict(train_dataloader=dict(dataset=dataset))), ('train',))
    cfg = Config(dict(train_dataloader=dict(dataset=dict(dataset, type='ImageNet'))))
    with pytest.raises(DataError, match=f'{tmp_path}/train'):
        check_present(cfg, ('train',))
