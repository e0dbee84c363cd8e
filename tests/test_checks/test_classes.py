"""Numbers and names of classes of the model, the data sets and the evaluators, in all hosts."""

import copy

import pytest
from mmengine.config import Config

from mmcloformer.checks.classes import class_problems
from mmcloformer.checks.examine import check_dataset
from mmcloformer.checks.presence import check_data
from mmcloformer.datasets.shapes import CLASSES
from mmcloformer.errors import DataError
from tests.conftest import ROOT
from tests.helpers_configs import CONFIGS, FOLDERS

BOTH = ('train', 'val')
ALL = ('train', 'val', 'test')
WATER = ('shore', 'water')


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


def problems(cfg, splits=BOTH):
    return list(class_problems(cfg, splits))


def problem(cfg, splits=BOTH):
    (text,) = problems(cfg, splits)
    return text


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
    text = problem(detector)
    assert text == (
        'model.bbox_head.num_classes is 80, but train_dataloader.dataset has 4 classes '
        '(ring, square, star, triangle); set it to 4'
    )
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
    reason = 'train_dataloader.dataset has 5 classes (ground, ring, square, star, ...); set it to 5'
    for field in ('decode_head', 'auxiliary_head.0'):
        assert f'  model.{field}.num_classes is 150, but {reason}' in text
    assert text.count('set it to') == 2
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
    with pytest.raises(DataError) as error:
        check_data(cfg, BOTH)
    lines = str(error.value).splitlines()[1:]
    for line, start in zip(
        lines,
        [
            'train_dataloader.dataset.metainfo.classes is not set, so the type ImageNet gives 1000',
            'val_dataloader.dataset.metainfo.classes is not set, so the type ImageNet gives 1000',
            'model.head.num_classes is 1000, but',
            'data_preprocessor.num_classes is 1000, but',
            'val_evaluator.topk is (1, 5), but',
        ],
        strict=True,
    ):
        assert line.startswith(f'  {start}')
    assert lines[0].endswith(f'set it to {names}')
    assert lines[1].endswith(f'set it to {names}; likewise in test_dataloader')
    assert lines[4].endswith('set it to (1,); likewise in test_evaluator')
    _, found, _ = check_dataset(cfg, workers=0)
    assert [f'  {each}' for each in found] == lines


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
    assert problems(classifier) == [
        'data_preprocessor.num_classes is 1000, but model.head.num_classes is 4; set it to 4',
        'val_evaluator.topk is (1, 5), but model.head.num_classes is 4; set it to (1,)',
    ]


@pytest.mark.parametrize('host', ['mmdet', 'mmseg', 'mmpretrain'])
def test_one_class_without_a_comma(host, configs):
    cfg = copy.deepcopy(configs[host])
    set_classes(cfg, 'water', splits=('train',))
    field = 'train_dataloader.dataset.metainfo.classes'
    text = next(class_problems(cfg, BOTH))
    assert text == f"{field} is the string 'water', and no file of names; write a tuple: ('water',)"


def test_strings_in_the_field_of_mmpretrain(classifier, tmp_path):
    set_classes(classifier, None, classes='water')
    assert problems(classifier)[0].startswith('train_dataloader.dataset.classes is the string')
    set_classes(classifier, None, classes='data/names.txt')
    assert problems(classifier)[0].endswith('no file of names; put it there')
    file = tmp_path / 'names.txt'
    file.write_text('\n'.join(CLASSES))
    set_classes(classifier, None, classes=str(file))
    assert not problems(classifier)


def test_another_spelling_of_the_field(segmentor):
    segmentor.train_dataloader.dataset.metainfo = dict(CLASSES=CLASSES)
    text = problems(segmentor)[0]
    assert text.startswith('train_dataloader.dataset.metainfo.CLASSES is not read by the host')


def test_own_classes_with_a_type_that_has_fixed_ones(segmentor):
    set_classes(segmentor, WATER, type='ADE20KDataset')
    segmentor.model.decode_head.num_classes = 2
    text = problems(segmentor)[0]
    assert text == (
        'train_dataloader.dataset.type is ADE20KDataset, which takes only a selection of its own '
        '150 classes, but train_dataloader.dataset.metainfo.classes has shore; set the type to '
        "'BaseSegDataset', with reduce_zero_label=True if your files are like its files"
    )
    set_classes(segmentor, ('wall', 'water'))
    assert not problems(segmentor)


def test_a_head_narrower_than_a_type(segmentor):
    set_classes(segmentor, None, type='ADE20KDataset')
    text = problem(segmentor)
    assert 'has 150 classes of its type ADE20KDataset (wall, building, sky, floor, ...)' in text


def test_segmentors_of_two_classes(segmentor):
    set_classes(segmentor, WATER)
    for numbers in (dict(num_classes=2), dict(num_classes=2, out_channels=1), dict(num_classes=1)):
        segmentor.model.decode_head.pop('out_channels', None)
        segmentor.model.decode_head.update(numbers)
        assert not problems(segmentor)
    segmentor.model.decode_head.update(num_classes=2, out_channels=1)
    set_classes(segmentor, ('land', 'water', 'sky'))
    assert len(problems(segmentor)) == 2
    set_classes(segmentor, ('water',))
    assert problems(segmentor)[0].endswith("write ('background', 'water')")


def test_a_palette_of_another_length(segmentor):
    segmentor.train_dataloader.dataset.metainfo.palette = [(0, 0, 0)] * 3
    assert 'metainfo.palette has 3 colours, but there are 5 classes' in problem(segmentor)


@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
def test_validation_with_other_classes_than_training(host, configs):
    cfg = copy.deepcopy(configs[host])
    names = tuple(cfg.train_dataloader.dataset.metainfo.classes)
    for other in (names[::-1], names[:-1]):
        set_classes(cfg, other, splits=('val',))
        text = problem(cfg)
        assert text.startswith(f'val_dataloader.dataset.metainfo.classes is ({", ".join(other)})')
        assert text.endswith(
            f'({", ".join(names)}), and classes are matched by position; set it to these'
        )
    set_classes(cfg, (*names, 'more'), splits=('val',))
    assert not problems(cfg)


def test_a_config_that_is_only_tested(segmentor):
    """Its training set is not looked at if the model has other classes."""
    set_classes(segmentor, ('sky', 'road', 'tree'), splits=('test',))
    assert 'classes are matched by position' in problem(segmentor, ('test',))
    segmentor.model.decode_head.num_classes = 3
    assert not problems(segmentor, ('test',))
    segmentor.model.decode_head.num_classes = 4
    assert problem(segmentor, ('test',)).startswith(
        'test_dataloader.dataset has 3 classes, but model.decode_head.num_classes is 4'
    )


def test_a_wrapped_data_set_is_named_by_its_field(detector):
    inner = detector.train_dataloader.dataset
    both = dict(type='ConcatDataset', datasets=[inner, inner | dict(metainfo=dict(classes=('a',)))])
    detector.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=both)
    text = problem(detector)
    assert text.startswith('train_dataloader.dataset.dataset.datasets.1.metainfo.classes is (a)')


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
    assert 'test_evaluator.topk is (1, 5)' in problem(classifier, ('test',))


def test_another_word_for_the_only_class(detector):
    detector.train_dataloader.dataset.metainfo.classes = ('ring',)
    detector.val_dataloader.dataset.metainfo.classes = ('circle',)
    detector.model.bbox_head.num_classes = 1
    assert problems(detector) == []


def test_metainfo_that_is_no_mapping(segmentor):
    segmentor.train_dataloader.dataset.metainfo = WATER
    text = '\n'.join(problems(segmentor, ('train',)))
    assert "metainfo is ('shore', 'water'); write dict(classes=(...))" in text


def test_numbers_for_names(classifier, tmp_path):
    for split in ('train', 'val'):
        for name in '012':
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            (folder / 'a.png').touch()
    classifier.model.head.num_classes = classifier.data_preprocessor.num_classes = 3
    for split in ALL:
        dataset = classifier[f'{split}_dataloader'].dataset
        dataset.update(data_root=str(tmp_path), metainfo=dict(classes=[0, 1, 2]))
    assert problems(classifier, BOTH) == []
