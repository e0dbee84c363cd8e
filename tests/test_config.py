import sys
from types import ModuleType

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import Registry

from mmcloformer import CloFormer
from mmcloformer.config import HOSTS, ConfigView, walk
from tests.spelling import SPELLINGS, spell

MODELS = dict(mmdet='RetinaNet', mmseg='EncoderDecoder', mmpretrain='ImageClassifier')
DATASETS = dict(mmdet='CocoDataset', mmseg='BaseSegDataset', mmpretrain='CustomDataset')
METRICS = dict(mmdet='CocoMetric', mmseg='IoUMetric', mmpretrain='Accuracy')


@pytest.fixture(params=HOSTS)
def host(request):
    return request.param


@pytest.mark.parametrize('spelling', SPELLINGS)
@pytest.mark.parametrize('registry', ['MODELS', 'DATASETS', 'METRICS'])
def test_every_spelling_of_a_type_is_the_same_class(host, registry, spelling):
    name = globals()[registry][host]
    kind = spell(host, registry, name, spelling)
    view = ConfigView(Config(dict(default_scope=host)))
    assert view.resolve(dict(type=kind), registry) is spell(host, registry, name, 'itself')


@pytest.mark.parametrize('spelling', ['scoped', 'path', 'itself'])
def test_the_host_is_known_without_a_default_scope(host, spelling):
    kind = spell(host, 'MODELS', MODELS[host], spelling)
    for scope in (None, 'a_project'):
        view = ConfigView(Config(dict(default_scope=scope, model=dict(type=kind))))
        assert view.host == host


def test_a_subclass_of_the_user_belongs_to_the_host_of_its_base(host):
    base = spell(host, 'MODELS', MODELS[host], 'itself')
    own = type('Own', (base,), {})
    assert ConfigView(Config(dict(model=dict(type=own)))).host == host


class OwnSet(BaseDataset):
    """A data set of a project."""


class OwnRegistry(Registry):
    """Imports what it registers when it is asked for it."""

    def import_from_location(self):
        self._module_dict['OwnSet'] = OwnSet


@pytest.fixture
def project(monkeypatch):
    """A project with a registry of data sets only."""
    registry = ModuleType('a_project.registry')
    registry.DATASETS = OwnRegistry('dataset', parent=ROOT_DATASETS, scope='a_project')
    monkeypatch.setitem(sys.modules, 'a_project', ModuleType('a_project'))
    monkeypatch.setitem(sys.modules, 'a_project.registry', registry)
    yield
    del ROOT_DATASETS.children['a_project']


@pytest.mark.usefixtures('project')
def test_names_of_a_project_are_found_in_its_scope(host):
    model = dict(type=spell(host, 'MODELS', MODELS[host], 'scoped'))
    view = ConfigView(Config(dict(default_scope='a_project', model=model)))
    settings = dict(type='OwnSet', lazy_init=True)
    assert view.resolve(settings, 'DATASETS') is OwnSet
    assert view.resolve('NoSuchMetric', 'METRICS') is None  # It has no registry of metrics.
    assert type(view.build_dataset(settings)) is OwnSet
    assert (view.host, view.scope) == (host, 'a_project')


def test_an_unknown_type_has_no_class(host):
    view = ConfigView(Config(dict(default_scope=host)))
    assert view.resolve('NoSuchClass', 'DATASETS') is None
    assert view.resolve(None, 'DATASETS') is None


def test_data_sets_inside_wrappers_pass_the_steps_of_all(host):
    def leaf(name):
        return dict(type=DATASETS[host], data_root=name, pipeline=[dict(type=f'Load{name}')])

    both = dict(type='ConcatDataset', datasets=[leaf('A'), leaf('B')])
    repeated = dict(
        type='RepeatDataset', times=2, dataset=both, pipeline=[dict(type='LoadImageFromFile')]
    )
    view = ConfigView(Config(dict(default_scope=host, train_dataloader=dict(dataset=repeated))))
    first, second = view.datasets('train', 'val')
    assert first.entry.field == 'train_dataloader.dataset.dataset.datasets.0'
    assert second.entry.settings['data_root'] == 'B'
    assert [step.settings['type'] for step in second.steps] == ['LoadB', 'LoadImageFromFile']
    assert second.steps[1].field == 'train_dataloader.dataset.pipeline.0'
    assert second.steps[1].kind.__name__ == 'LoadImageFromFile'


def test_a_data_set_may_have_a_field_called_dataset(host):
    named = dict(type=DATASETS[host], dataset='cars', datasets=['cars', 'bikes'])
    view = ConfigView(Config(dict(default_scope=host, train_dataloader=dict(dataset=named))))
    assert [each.entry.field for each in view.datasets('train')] == ['train_dataloader.dataset']


def test_one_evaluator_or_several(host):
    one = dict(type=METRICS[host])
    view = ConfigView(
        Config(dict(default_scope=host, val_evaluator=one, test_evaluator=[one, one]))
    )
    fields = [each.field for each in view.evaluators('val', 'test')]
    assert fields == ['val_evaluator', 'test_evaluator.0', 'test_evaluator.1']
    assert all(each.kind.__name__ == METRICS[host] for each in view.evaluators('test'))
    view.cfg.val_evaluator = dict(type='Evaluator', metrics=one)
    view.cfg.test_evaluator = [dict(metrics=[one])]  # For a loop of several loaders.
    fields = [each.field for each in view.evaluators('val', 'test')]
    assert fields == ['val_evaluator.metrics', 'test_evaluator.0.metrics.0']


def test_a_list_of_loaders_is_left_to_the_loop_that_takes_it(host):
    loader = dict(dataset=dict(type=DATASETS[host]))
    view = ConfigView(Config(dict(default_scope=host, val_dataloader=[loader, loader])))
    assert [*view.datasets('val')] == []


def test_the_preprocessor_has_the_default_class_of_the_host(host):
    from mmengine.model import BaseDataPreprocessor

    view = ConfigView(Config(dict(default_scope=host, data_preprocessor=dict(mean=[0.0]))))
    assert view.preprocessor().field == 'data_preprocessor'
    assert view.preprocessor().is_a(BaseDataPreprocessor)
    is_classifier = view.preprocessor().kind.__name__ == 'ClsDataPreprocessor'
    assert is_classifier == (host == 'mmpretrain')


@pytest.mark.parametrize('kind', ['CloFormer', 'mmengine.CloFormer', CloFormer])
def test_parts_are_found_with_what_is_around_them(kind):
    model = dict(
        type='RetinaNet', backbone=dict(type=kind), heads=[dict(type='FPN'), dict(a=[1, dict()])]
    )
    view = ConfigView(Config(dict(default_scope='mmdet', model=model)))
    (node,) = view.parts(CloFormer)
    assert node.field == 'model.backbone'
    assert [each['type'] for each in node.parents] == ['RetinaNet']


def test_walk_yields_every_value_once_with_its_field():
    found = {node.field: node.value for node in walk(dict(a=[1, dict(b=2)], c='d'))}
    assert found == {'a': [1, {'b': 2}], 'a.0': 1, 'a.1': {'b': 2}, 'a.1.b': 2, 'c': 'd'}
