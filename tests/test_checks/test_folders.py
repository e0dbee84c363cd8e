"""Class folders of mmpretrain, whose labels are positions in sorted order."""

import pytest
from mmengine.config import Config

from mmcloformer.checks.classes import class_problems
from mmcloformer.checks.presence import check_data
from mmcloformer.config import ConfigView
from mmcloformer.errors import DataError

NAMES = ('cat', 'dog', 'owl')


@pytest.fixture
def make(tmp_path):
    """Make class folders, with an image each, and a config for them."""

    def make(train=NAMES, val=NAMES, classes=None, number=3, empty=(), **fields):
        for split, names in (('train', train), ('val', val)):
            for name in names:
                folder = tmp_path / split / name
                folder.mkdir(parents=True)
                if f'{split}/{name}' not in empty:
                    (folder / 'image.JPG').touch()
        metainfo = {} if classes is None else dict(metainfo=dict(classes=classes))
        common = dict(type='CustomDataset', data_root=str(tmp_path)) | metainfo
        loaders = {
            f'{split}_dataloader': dict(
                dataset=common | dict(data_prefix=split) | fields.get(split, {})
            )
            for split in ('train', 'val')
        }
        head = dict(type='LinearClsHead', num_classes=number, in_channels=8)
        model = dict(type='ImageClassifier', head=head)
        return Config(dict(default_scope='mmpretrain', model=model) | loaders)

    return make


def problems(cfg, splits):
    return list(class_problems(ConfigView(cfg), splits))


def problem(cfg):
    (found,) = problems(cfg, ('train', 'val'))
    return found


def test_equal_folders_pass(make):
    cfg = make()
    check_data(cfg, ('train', 'val'))
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=('Kater', 'Hund', 'Eule'))
    check_data(cfg, ('train', 'val'))


def test_a_head_of_more_classes_than_folders(make):
    found = problem(make(number=1000))
    assert (found.field, found.remedy) == ('model.head.num_classes', 'set it to 3')


@pytest.mark.parametrize('empty', [(), ('train/.ipynb_checkpoints',)])
def test_a_hidden_folder_is_named(make, empty, tmp_path):
    cfg = make(train=('.ipynb_checkpoints', *NAMES), empty=empty)
    found = problem(cfg)
    assert found.file == f'{tmp_path}/train/.ipynb_checkpoints'
    assert (found.field, found.remedy) == ('train_dataloader.dataset', 'remove it')
    with pytest.raises(DataError, match='ipynb'):
        check_data(cfg, ('train', 'val'))


def test_a_hidden_folder_beside_names(make):
    """The host would stop at its number of folders."""
    assert problem(make(val=('.cache', *NAMES), classes=NAMES)).file.endswith('/val/.cache')


def test_other_names_in_equal_number(make, tmp_path):
    found = problem(make(val=('cat', 'doge', 'owl')))
    assert found.field == 'val_dataloader.dataset'
    assert 'doge has the label 1 there and no label in training' in found.found
    assert f'only in {tmp_path}/val: doge; only in {tmp_path}/train: dog' in found.found


def test_an_empty_folder_of_one_split_shifts_the_labels(make, tmp_path):
    cfg = make(train=('cat', 'crow', 'dog', 'owl'), number=4, empty=('train/crow',))
    found = problem(cfg).found
    assert 'dog has the label 1 there and the label 2 in training' in found
    assert f'only in {tmp_path}/train: crow (no images)' in found


def test_a_class_that_validation_lacks(make):
    assert 'owl has the label 1 there' in problem(make(val=('cat', 'owl'))).found


@pytest.mark.parametrize(
    'folders',
    [
        dict(val=('cat', 'dog')),
        dict(empty=('val/dog',)),
        dict(val=(*NAMES, 'zebra'), empty=('val/zebra',)),
        dict(train=(*NAMES, 'zebra'), empty=('train/zebra',)),
        dict(train=(*NAMES, 'zebra'), empty=('train/zebra',), number=4),
    ],
)
def test_differences_that_change_no_label_pass(make, folders):
    check_data(make(**folders), ('train', 'val'))


@pytest.mark.parametrize('classes', [('dog', 'cat', 'owl'), ('Dog', 'Cat', 'Owl')])
def test_names_in_another_order_than_the_folders(make, classes):
    train, val = problems(make(classes=classes), ('train', 'val'))
    assert train.field == 'train_dataloader.dataset.metainfo.classes'
    assert train.remedy == f'set it to {NAMES}'
    assert val.field == 'val_dataloader.dataset.metainfo.classes'


def test_another_number_of_names_than_folders(make):
    found = problems(make(classes=('cat', 'dog')), ('train',))[0]
    assert found.field == 'train_dataloader.dataset.metainfo.classes'
    assert found.remedy == f'set it to {NAMES}'


def test_numbered_folders_are_sorted_as_text(make):
    folders = [str(number) for number in range(11)]
    cfg = make(train=folders, val=folders, classes=folders, number=11)
    found = problems(cfg, ('train',))[0].found
    assert 'gives the folder 10 of' in found
    assert 'the name 2' in found


@pytest.mark.parametrize('listed', ['train', 'val'])
def test_a_list_with_names_beside_folders(make, tmp_path, listed):
    cfg = make()
    (tmp_path / 'list.txt').write_text('cat/image.JPG 1\n')
    dataset = cfg[f'{listed}_dataloader'].dataset
    dataset.update(ann_file='list.txt', metainfo=dict(classes=NAMES))
    assert not [*problems(cfg, ('train', 'val'))]
    dataset.metainfo.classes = ('dog', 'cat', 'owl')
    assert problem(cfg).field == f'{listed}_dataloader.dataset'


def test_a_test_set_alone(make):
    cfg = make(number=1000)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.pop('train_dataloader')
    assert problems(cfg, ('test',))[0].field == 'test_dataloader.dataset'


def test_images_without_class_folders_and_other_back_ends_are_left_to_the_host(make):
    cfg = make(train=('cat',), val=('cat',), number=5)
    for fields in (dict(with_label=False), dict(data_root='s3://bucket'), dict(data_prefix='cat')):
        for split in ('train', 'val'):
            cfg[f'{split}_dataloader'].dataset.update(fields)
        assert not [*problems(cfg, ('train', 'val'))]
