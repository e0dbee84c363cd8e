import json
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmcloformer import CloFormer
from mmcloformer.apis.config import build_model, load_trained
from mmcloformer.apis.predict import Predictor
from mmcloformer.checkpoint import shipped
from mmcloformer.checkpoint.shipped import load_from_package, publish
from mmcloformer.errors import CheckpointError
from tests.conftest import ROOT

CLASSES = ['goldfish', 'Egyptian cat', 'espresso']


@pytest.fixture(scope='module')
def cfg():
    cfg = Config.fromfile(ROOT / 'configs/cloformer_xxs_tiny-imagenet.py')
    cfg.model.head.num_classes = len(CLASSES)
    return cfg


@pytest.fixture(scope='module')
def state_dict(cfg):
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    return model.state_dict()


@pytest.fixture(scope='module')
def checkpoint(state_dict, tmp_path_factory):
    path = tmp_path_factory.mktemp('trained') / 'epoch_1.pth'
    meta = dict(epoch=1, dataset_meta=dict(classes=tuple(CLASSES)))
    torch.save(dict(state_dict=state_dict, meta=meta), path)
    return path


@pytest.fixture(scope='module')
def published(checkpoint, tmp_path_factory):
    """Folder with weights of the name `toy`."""
    folder = tmp_path_factory.mktemp('weights')
    publish(checkpoint, 'toy', folder=folder)
    return folder


@pytest.fixture
def folder(published, tmp_path, monkeypatch):
    """A copy of it in the place of the package's."""
    folder = shutil.copytree(published, tmp_path / 'weights')
    monkeypatch.setattr(shipped, 'FOLDER', folder)
    return folder


def test_a_classifier_comes_back_whole(folder, state_dict):
    loaded = load_from_package('toy', folder=folder)
    assert loaded['meta'] == dict(
        arch='xxs', num_classes=3, dataset_meta=dict(classes=tuple(CLASSES))
    )
    assert loaded['state_dict'].keys() == state_dict.keys()
    for key, value in loaded['state_dict'].items():
        assert value.dtype == state_dict[key].dtype
        torch.testing.assert_close(value, state_dict[key], rtol=1e-3, atol=1e-6)


def test_a_backbone_takes_its_part(folder, state_dict):
    init_cfg = dict(type='Pretrained', checkpoint='mmcloformer://toy')
    backbone = CloFormer('xxs', init_cfg=init_cfg)
    backbone.init_weights()
    key = 'stages.3.1.ffn.fc1.weight'
    expected = state_dict[f'backbone.{key}'].half().float()
    assert torch.equal(backbone.state_dict()[key], expected)
    with pytest.raises(CheckpointError, match='does not fit this CloFormer'):
        CloFormer('xs', init_cfg=init_cfg).init_weights()


def test_it_predicts_and_is_exported_with_the_names_of_the_classes(
    folder, cfg, checkpoint, tmp_path
):
    photo = tmp_path / 'photo.png'
    Image.radial_gradient('L').convert('RGB').resize((150, 100)).save(photo)
    result = Predictor(cfg, 'mmcloformer://toy')(photo).result
    assert result['pred_class'] in CLASSES
    trained = Predictor(cfg, str(checkpoint))(photo).result
    assert result['pred_scores'] == pytest.approx(trained['pred_scores'], abs=1e-2)
    assert tuple(load_trained(cfg, 'mmcloformer://toy')[1]['classes']) == tuple(CLASSES)


@pytest.mark.parametrize('names', [np.array(CLASSES), np.arange(3)])
def test_names_of_numpy_and_shared_weights(state_dict, tmp_path, names):
    shared = dict(state_dict)
    first, second = (f'backbone.stages.0.0.norm{i}.weight' for i in (1, 2))
    shared[first] = shared[second] = shared[first].half()
    content = dict(state_dict=shared, meta=dict(dataset_meta=dict(classes=names)))
    torch.save(content, tmp_path / 'shared.pth')
    publish(tmp_path / 'shared.pth', 'shared', folder=tmp_path)
    loaded = load_from_package('shared', folder=tmp_path)
    assert loaded['meta']['dataset_meta']['classes'] == tuple(map(str, names))
    assert torch.equal(loaded['state_dict'][first], loaded['state_dict'][second])


def test_meta_data_of_another_class_give_no_names(state_dict, tmp_path):
    torch.save(dict(state_dict=state_dict, meta=Namespace(epoch=1)), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='3 classes and there are 0 class names'):
        publish(tmp_path / 'a.pth', 'a', folder=tmp_path)


def test_a_damaged_file_is_refused(folder):
    path = folder / 'toy.safetensors'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'toy.safetensors is damaged .*install mmcloformer'):
        load_from_package('toy', folder=folder)
    path.unlink()
    with pytest.raises(CheckpointError, match='is missing: install mmcloformer again'):
        load_from_package('toy', folder=folder)


def test_an_unknown_name_lists_the_known(folder):
    backbone = CloFormer('xxs', init_cfg=dict(type='Pretrained', checkpoint='mmcloformer://none'))
    with pytest.raises(CheckpointError, match=r"no weights 'none' .* it has toy"):
        backbone.init_weights()
    with pytest.raises(CheckpointError, match='it has none'):
        load_from_package('toy', folder=folder / 'empty')


def test_the_packages_own_weights_are_whole():
    names = {path.stem for path in shipped.FOLDER.glob('*.safetensors')}
    index = shipped.FOLDER / shipped.INDEX
    assert names == (json.loads(index.read_text()).keys() if index.exists() else set())
    for name in names:
        meta = load_from_package(name)['meta']
        assert len(meta['dataset_meta']['classes']) == meta['num_classes']
        init_cfg = dict(type='Pretrained', checkpoint=f'{shipped.SCHEME}{name}')
        CloFormer(meta['arch'], init_cfg=init_cfg).init_weights()


def test_the_pages_say_what_was_logged_and_what_is_shipped():
    tested = read_log('tiny-imagenet-test')
    *_, logged = read_log('tiny-imagenet')['accuracy/top1'].values()
    assert tested['accuracy/top1'] == pytest.approx(logged, abs=1)
    card = (shipped.FOLDER / 'README.md').read_text()
    widened = read_log('tiny-imagenet-xs-test')
    for each in (tested, widened):
        top1, top5 = (each[f'accuracy/{metric}'] for metric in ('top1', 'top5'))
        assert f'top-1 {top1:.1f} %, top-5 {top5:.1f} %' in card
    assert f'{tested["accuracy/top1"]:.1f}' in (ROOT / 'README.md').read_text()
    page = (ROOT / 'docs/tiny-imagenet.md').read_text()
    *_, on_a_cpu = read_log('tiny-imagenet-cpu')['accuracy/top1'].values()
    for top1 in (tested['accuracy/top1'], on_a_cpu, widened['accuracy/top1']):
        assert f'top-1 {top1:.1f} %' in page
    for entry in json.loads((shipped.FOLDER / shipped.INDEX).read_text()).values():
        assert f'{entry["bytes"]:,} bytes, SHA-256 `{entry["sha256"]}`' in card


def read_log(name):
    return json.loads((ROOT / f'benchmarks/{name}.json').read_text())


def test_only_free_and_plain_names(checkpoint, folder):
    for name in ('../x', 'a/b', '/x', 'a b', ''):
        with pytest.raises(CheckpointError, match='not a valid name for weights; use letters'):
            publish(checkpoint, name, folder=folder)
    before = (folder / 'toy.safetensors').read_bytes()
    with pytest.raises(CheckpointError, match='exists; remove it or choose another name'):
        publish(checkpoint, 'toy', folder=folder)
    assert (folder / 'toy.safetensors').read_bytes() == before


def test_what_is_not_published(state_dict, tmp_path):
    checkpoint = tmp_path / 'bad.pth'
    torch.save(state_dict, checkpoint)
    with pytest.raises(CheckpointError, match='has 3 classes and there are 0 class names'):
        publish(checkpoint, 'bad', folder=tmp_path)
    with pytest.raises(CheckpointError, match='has 3 classes and there are 2 class names'):
        publish(checkpoint, 'bad', CLASSES[:2], tmp_path)
    torch.save({**state_dict, 'head.fc.bias': torch.full((3,), 1e6)}, checkpoint)
    with pytest.raises(CheckpointError, match=r'not finite in half .* head\.fc\.bias'):
        publish(checkpoint, 'bad', CLASSES, tmp_path)
    part = {key: value for key, value in state_dict.items() if '.ffn.' not in key}
    for incomplete in (part, {'backbone.weight': torch.ones(2)}):
        torch.save(incomplete, checkpoint)
        with pytest.raises(CheckpointError, match='not the weights of a classifier'):
            publish(checkpoint, 'bad', CLASSES, tmp_path)
    assert not list(tmp_path.glob('*.safetensors'))
