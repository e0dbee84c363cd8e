"""Numbers and names of classes: of the model, data sets, folders and evaluators."""

import copy

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmseg.datasets import ADE20KDataset

from mmcloformer.checks.classes import class_problems
from mmcloformer.checks.coco import coco_problems
from mmcloformer.checks.examine import check_dataset
from mmcloformer.checks.presence import check_data
from mmcloformer.config import ConfigView
from mmcloformer.datasets.shapes import CLASSES
from mmcloformer.errors import DataError
from tests.conftest import ROOT
from tests.helpers_configs import CONFIGS, FOLDERS
from tests.spelling import SPELLINGS, spell

BOTH = ('train', 'val')
ALL = ('train', 'val', 'test')
NAMES = ('cat', 'dog', 'owl')


def shapes_config(name, shapes):
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    for split in ALL:
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes}/{FOLDERS[cfg.default_scope]}/'
    return cfg


@pytest.fixture(scope='module')
def configs(shapes):
    names = dict(
        mmdet='retinanet_cloformer_xxs_custom',
        mmseg='demo/semantic-fpn_cloformer_xxs_shapes',
        mmpretrain='demo/cloformer_xxs_shapes',
    )
    return {host: shapes_config(name, shapes) for host, name in names.items()}


@pytest.fixture
def detector(configs):
    return copy.deepcopy(configs['mmdet'])


@pytest.fixture
def segmentor(configs):
    return copy.deepcopy(configs['mmseg'])


@pytest.fixture
def classifier(configs):
    return copy.deepcopy(configs['mmpretrain'])


class OwnCoco(CocoDataset):
    def __init__(self, **settings):
        super().__init__(**settings, metainfo=dict(classes=CLASSES))


class OwnSegments(ADE20KDataset):
    @classmethod
    def get_label_map(cls, new_classes=None):
        return {label: label % 5 for label in range(150)}


def problems(cfg, splits=BOTH):
    return list(class_problems(ConfigView(cfg), splits))


def problem(cfg, splits=BOTH):
    (found,) = problems(cfg, splits)
    return found


def set_classes(cfg, names, splits=ALL, **fields):
    for split in splits:
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.update(fields)
        dataset.metainfo = {} if names is None else dict(classes=names)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_projects_configs_agree(path):
    cfg = Config.fromfile(path)
    if 'tiny-imagenet' in path.stem:  # Its names are in a file of the data set.
        for split in ALL:
            dataset = cfg[f'{split}_dataloader'].dataset
            dataset = dataset.get('dataset', dataset)
            dataset.classes = [f'class {i}' for i in range(200)]
    for splits in (BOTH, ('test',)):
        assert not problems(cfg, splits)


@pytest.mark.parametrize('host', ['mmdet', 'mmseg', 'mmpretrain'])
def test_the_generated_scenes_agree(host, configs):
    for splits in (BOTH, ('test',), ALL):
        assert not problems(configs[host], splits)


def test_a_detectors_head(detector):
    detector.model.bbox_head.num_classes = 80
    found = problem(detector)
    assert (found.field, found.remedy) == ('model.bbox_head.num_classes', 'set it to 4')
    assert 'train_dataloader.dataset has 4 classes (ring, square, star, triangle)' in found.found
    assert not problems(detector, ('test',))


def test_a_segmentors_heads_are_named_in_one_message(segmentor):
    segmentor.model.decode_head.num_classes = 150
    segmentor.model.auxiliary_head = [
        dict(type='FCNHead', num_classes=150),
        dict(type='FCNHead', num_classes=5),
        dict(type='STDCHead', num_classes=2),
    ]
    with pytest.raises(DataError) as error:
        check_data(segmentor, BOTH)
    text = str(error.value)
    for field in ('decode_head', 'auxiliary_head.0'):
        assert f'  model.{field}.num_classes: is 150' in text
    assert text.count('set it to 5') == 2
    _, found, _ = check_dataset(segmentor, workers=0)
    assert len(found) == 2


def test_the_imagenet_config_on_own_folders_names_every_field(tmp_path):
    names = ('cat', 'dog', 'owl')
    cfg = Config.fromfile(ROOT / 'configs' / 'cloformer_xxs_imagenet.py')
    for split in ALL:
        cfg[f'{split}_dataloader'].dataset.data_root = str(tmp_path)
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / 'image.jpg').touch()
    assert [(each.field, each.remedy) for each in problems(cfg)] == [
        ('train_dataloader.dataset.metainfo.classes', f'set it to {names}'),
        (
            'val_dataloader.dataset.metainfo.classes',
            f'set it to {names}',
        ),
        ('model.head.num_classes', 'set it to 3'),
        ('data_preprocessor.num_classes', 'set it to 3'),
        ('val_evaluator.topk', 'set it to (1,)'),
    ]
    with pytest.raises(DataError) as error:
        check_data(cfg, BOTH)
    assert len(str(error.value).splitlines()) == 6
    assert len(check_dataset(cfg, workers=0).problems) == 5


def test_a_classifier_whose_classes_are_unknown_is_compared_with_itself(classifier, tmp_path):
    (tmp_path / 'list.txt').write_text('a.jpg 0\n')
    fields = dict(type='CustomDataset', ann_file=f'{tmp_path}/list.txt', split='')
    set_classes(classifier, None, **fields)
    for split in ALL:
        del classifier[f'{split}_dataloader'].dataset['split']
    assert not problems(classifier)
    classifier.model.train_cfg = dict(augments=dict(type='Mixup', alpha=0.8))
    classifier.data_preprocessor.num_classes = 1000
    classifier.val_evaluator.topk = (1, 5)
    classifier.test_evaluator.topk = 1
    assert [(each.field, each.remedy) for each in problems(classifier)] == [
        ('data_preprocessor.num_classes', 'set it to 4'),
        ('val_evaluator.topk', 'set it to (1,)'),
    ]


@pytest.mark.parametrize('host', ['mmdet', 'mmseg', 'mmpretrain'])
def test_names_that_are_no_tuple(host, configs):
    cfg = copy.deepcopy(configs[host])
    set_classes(cfg, 'water', splits=('train',))
    found = problems(cfg)[0]
    assert found.field == 'train_dataloader.dataset.metainfo.classes'
    assert found.remedy == "write a tuple of names, such as ('water',)"
    cfg.train_dataloader.dataset.metainfo = dict(CLASSES=CLASSES)
    assert problems(cfg)[0].field == 'train_dataloader.dataset.metainfo.CLASSES'


def test_names_in_the_field_of_mmpretrain(classifier, tmp_path):
    file = tmp_path / 'names.txt'
    set_classes(classifier, None, classes=str(file))
    assert problems(classifier)[0].field == 'train_dataloader.dataset.classes'
    file.write_text('\n'.join(CLASSES))
    assert not problems(classifier)


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_own_classes_with_a_type_that_has_fixed_ones(segmentor, spelling):
    kind = spell('mmseg', 'DATASETS', 'ADE20KDataset', spelling)
    set_classes(segmentor, ('shore', 'water'), type=kind)
    segmentor.model.decode_head.num_classes = 2
    found = problems(segmentor)[0]
    assert found.field == 'train_dataloader.dataset.type'
    assert "'BaseSegDataset'" in found.remedy
    set_classes(segmentor, ('wall', 'water'))
    assert not problems(segmentor)
    set_classes(segmentor, ('shore', 'water'), type=OwnSegments)
    assert not problems(segmentor)


def test_a_data_set_may_set_its_classes_itself(detector):
    for split in BOTH:
        dataset = detector[f'{split}_dataloader'].dataset
        dataset.type = OwnCoco
        del dataset['metainfo']
    assert not problems(detector)
    assert not [*coco_problems(ConfigView(detector), BOTH)]


def test_a_head_narrower_than_a_type(segmentor):
    set_classes(segmentor, None, type='ADE20KDataset')
    found = problem(segmentor)
    assert 'has 150 classes of its type ADE20KDataset (wall, building' in found.found


def test_segmentors_of_two_classes(segmentor):
    set_classes(segmentor, ('shore', 'water'))
    for numbers in (dict(num_classes=2), dict(num_classes=2, out_channels=1), dict(num_classes=1)):
        segmentor.model.decode_head.pop('out_channels', None)
        segmentor.model.decode_head.update(numbers)
        assert not problems(segmentor)
    segmentor.model.decode_head.update(num_classes=2, out_channels=1)
    set_classes(segmentor, ('land', 'water', 'sky'))
    assert len(problems(segmentor)) == 2
    set_classes(segmentor, ('water',))
    assert problems(segmentor)[0].remedy == "write ('background', 'water')"


@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
def test_validation_with_other_classes_than_training(host, configs):
    cfg = copy.deepcopy(configs[host])
    names = tuple(cfg.train_dataloader.dataset.metainfo.classes)
    for other in (names[::-1], names[:-1]):
        set_classes(cfg, other, splits=('val',))
        found = problem(cfg)
        assert found.field == 'val_dataloader.dataset.metainfo.classes'
        assert f'({", ".join(names)})' in found.found
    set_classes(cfg, (*names, 'more'), splits=('val',))
    assert not problems(cfg)


def test_a_config_that_is_only_tested(segmentor):
    """Its training set is not looked at if the model has other classes."""
    set_classes(segmentor, ('sky', 'road', 'tree'), splits=('test',))
    assert problem(segmentor, ('test',)).field == 'test_dataloader.dataset.metainfo.classes'
    segmentor.model.decode_head.num_classes = 3
    assert not problems(segmentor, ('test',))
    segmentor.model.decode_head.num_classes = 4
    assert problem(segmentor, ('test',)).field == 'test_dataloader.dataset'


def test_a_wrapped_data_set_is_named_by_its_field(detector):
    inner = detector.train_dataloader.dataset
    both = dict(type='ConcatDataset', datasets=[inner, inner | dict(metainfo=dict(classes=('a',)))])
    detector.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=both)
    field = 'train_dataloader.dataset.dataset.datasets.1.metainfo.classes'
    assert problem(detector).field == field


@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
def test_a_further_training_set_may_lack_the_last_classes(host, configs):
    cfg = copy.deepcopy(configs[host])
    inner = cfg.train_dataloader.dataset
    few = inner | dict(metainfo=dict(classes=inner.metainfo.classes[:-1]))
    both = dict(type='ConcatDataset', datasets=[inner, few], ignore_keys=['classes', 'palette'])
    cfg.train_dataloader.dataset = both
    assert not problems(cfg)


def test_what_is_no_data_set_of_a_host_is_left_to_it(classifier):
    for kind in ('MultiTaskDataset', 'NoSuchDataset'):
        classifier.train_dataloader.dataset.type = kind
        assert not problems(classifier)
    assert not problems(Config(dict(train_dataloader=dict(dataset=dict(type='Any')))))


def test_labels_of_a_list_may_be_of_other_classes_than_the_types(classifier, tmp_path):
    listing = tmp_path / 'list.txt'
    listing.write_text('a.png 0\nb.png 2\n')
    classifier.model.head.num_classes = classifier.data_preprocessor.num_classes = 3
    for split in ALL:
        dataset = classifier[f'{split}_dataloader'].dataset
        dataset.update(type='ImageNet', ann_file=str(listing), data_root=str(tmp_path))
        dataset.pop('metainfo')
    assert problems(classifier, ALL) == []


def test_topk_of_a_config_that_is_only_tested(classifier):
    classifier.test_evaluator.topk = (1, 5)
    assert problem(classifier, ('test',)).field == 'test_evaluator.topk'


def test_another_word_for_the_only_class(detector):
    detector.train_dataloader.dataset.metainfo.classes = ('ring',)
    detector.val_dataloader.dataset.metainfo.classes = ('circle',)
    detector.model.bbox_head.num_classes = 1
    assert problems(detector) == []


@pytest.fixture
def make(tmp_path):
    """Make class folders for mmpretrain, with an image each, and a config for them."""

    def make(train=NAMES, val=NAMES, classes=None, number=3, empty=()):
        metainfo = {} if classes is None else dict(metainfo=dict(classes=classes))
        common = dict(type='CustomDataset', data_root=str(tmp_path)) | metainfo
        loaders = {}
        for split, names in (('train', train), ('val', val)):
            for name in names:
                folder = tmp_path / split / name / 'below'
                folder.mkdir(parents=True)
                (folder / ('image.txt' if f'{split}/{name}' in empty else 'image.JPG')).touch()
            loaders[f'{split}_dataloader'] = dict(dataset=common | dict(data_prefix=split))
        head = dict(type='LinearClsHead', num_classes=number, in_channels=8)
        model = dict(type='ImageClassifier', head=head)
        return Config(dict(default_scope='mmpretrain', model=model) | loaders)

    return make


@pytest.mark.parametrize(
    'folders',
    [
        dict(),
        dict(classes=('Kater', 'Hund', 'Eule')),
        dict(classes=[0, 1, 2]),
        dict(train='012', val='012', classes=[0, 1, 2]),
        dict(val=('cat', 'dog')),
        dict(empty=('val/dog',)),
        dict(val=(*NAMES, 'zebra'), empty=('val/zebra',)),
        dict(train=(*NAMES, 'zebra'), empty=('train/zebra',)),
        dict(train=(*NAMES, 'zebra'), empty=('train/zebra',), number=4),
    ],
)
def test_folders_that_change_no_label_pass(make, folders):
    check_data(make(**folders), BOTH)


SHIFTED = 'val_dataloader.dataset'
TEXTS = [str(number) for number in range(11)]


@pytest.mark.parametrize(
    ('folders', 'field', 'words'),
    [
        (dict(number=1000), 'model.head.num_classes', 'has 3 classes (cat, dog, owl)'),
        (dict(train=('.checkpoints', *NAMES)), 'train_dataloader.dataset', 'a hidden folder'),
        (
            dict(train=('.checkpoints', *NAMES), empty=('train/.checkpoints',)),
            'train_dataloader.dataset',
            'a hidden folder',
        ),
        # The host would stop at its number of folders.
        (dict(val=('.checkpoints', *NAMES), classes=NAMES), SHIFTED, 'a hidden folder'),
        (dict(val=('cat', 'doge', 'owl')), SHIFTED, 'label 1 there and no label in training'),
        (dict(val=('cat', 'owl')), SHIFTED, 'owl has the label 1 there and 2 in training'),
        (
            dict(train=('cat', 'crow', 'dog', 'owl'), number=4, empty=('train/crow',)),
            SHIFTED,
            '/train: crow',
        ),
    ],
)
def test_folders_that_change_labels(make, folders, field, words):
    cfg = make(**folders)
    found = problem(cfg)
    assert found.field == field
    assert words in found.found
    with pytest.raises(DataError, match=field):
        check_data(cfg, BOTH)


@pytest.mark.parametrize(
    ('names', 'classes'),
    [
        (NAMES, ('dog', 'cat', 'owl')),
        (NAMES, ('Dog', 'Cat', 'Owl')),
        (NAMES, ('cat', 'dog')),
        (TEXTS, TEXTS),  # Folders are sorted as text.
    ],
)
def test_names_that_are_not_those_of_the_folders(make, names, classes):
    cfg = make(train=names, val=names, classes=classes, number=len(names))
    train, val = problems(cfg)
    assert train.field == 'train_dataloader.dataset.metainfo.classes'
    assert val.field == 'val_dataloader.dataset.metainfo.classes'
    if names == NAMES:
        assert train.remedy == f'set it to {NAMES}'


@pytest.mark.parametrize('listed', ['train', 'val'])
def test_a_list_with_names_beside_folders(make, tmp_path, listed):
    cfg = make()
    (tmp_path / 'list.txt').write_text('cat/below/image.JPG 1\n')
    dataset = cfg[f'{listed}_dataloader'].dataset
    dataset.update(ann_file='list.txt', metainfo=dict(classes=NAMES))
    assert not problems(cfg)
    dataset.metainfo.classes = ('dog', 'cat', 'owl')
    assert problem(cfg).field == f'{listed}_dataloader.dataset'


def test_folders_of_a_test_set_alone(make):
    cfg = make(number=1000)
    cfg.test_dataloader = cfg.pop('val_dataloader')
    cfg.pop('train_dataloader')
    assert problem(cfg, ('test',)).field == 'test_dataloader.dataset'


@pytest.mark.parametrize(
    'fields', [dict(with_label=False), dict(data_root='s3://bucket'), dict(data_prefix='cat')]
)
def test_images_without_class_folders_and_other_back_ends_are_left_to_the_host(make, fields):
    cfg = make(train=('cat',), val=('cat',), number=5)
    for split in BOTH:
        cfg[f'{split}_dataloader'].dataset.update(fields)
    assert not problems(cfg)
