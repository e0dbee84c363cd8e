"""Models of grey images and of four channels, in every tool that builds or reads images."""

import json
import re

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.config import Config

from benchmarks.models import Setting, config_step
from mmcloformer.analysis.complexity import measure
from mmcloformer.apis.config import image_channels, inference_steps
from mmcloformer.apis.predict import Predictor
from mmcloformer.errors import CheckpointError, ConfigError
from mmcloformer.export.model import color_type
from tests.test_export.tiny_models import NAMES, tiny_config, tiny_model

COLORS = {1: 'grayscale', 3: 'color', 4: 'unchanged', 5: 'unchanged', 6: 'unchanged'}


def channels_config(kind, channels):
    cfg = tiny_config(NAMES[kind])
    cfg.model.backbone.in_channels = channels
    settings = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    settings.update(mean=[120.0], std=[60.0], bgr_to_rgb=False)
    if cfg.default_scope == 'mmpretrain':
        settings.pop('bgr_to_rgb')
    if channels > 3:
        del settings['mean'], settings['std']
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.pipeline[0].color_type = COLORS[channels]
    return cfg


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Write the config and the checkpoint of a small model of a kind."""
    folder = tmp_path_factory.mktemp('channels')

    def write(kind, channels):
        config, checkpoint = (folder / f'{kind}{channels}{end}' for end in ('.py', '.pth'))
        if not config.exists():
            cfg = channels_config(kind, channels)
            cfg.dump(config)
            model = tiny_model(cfg)
            torch.save(dict(meta={}, state_dict=model.state_dict()), checkpoint)
        return config, checkpoint

    return write


@pytest.mark.parametrize(
    ('kind', 'channels'), [('classifier', 1), ('segmentor', 4), ('detector', 4)]
)
def test_counting_and_benchmarking(kind, channels, tmp_path):
    cfg = channels_config(kind, channels)
    assert (image_channels(cfg), color_type(inference_steps(cfg)[0])) == (
        channels,
        COLORS[channels],
    )
    # The stem's first convolution has stride 2, half of the first width, and 3x3 weights.
    cost = measure(cfg, (64, 96)).parts['backbone']
    other = measure(channels_config(kind, 5), (64, 96)).parts['backbone']
    assert other.params - cost.params == (5 - channels) * 8 * 9
    assert other.macs - cost.macs == (5 - channels) * 8 * 9 * 32 * 48
    cfg.dump(tmp_path / 'config.py')
    setting = Setting(device='cpu', size=(64, 64), batch=1, training=False)
    assert config_step(str(tmp_path / 'config.py'), setting)() is not None


@pytest.mark.parametrize(('kind', 'channels'), [('classifier', 1), ('segmentor', 4)])
def test_export_and_prediction(files, tool_main, shapes, tmp_path, monkeypatch, kind, channels):
    monkeypatch.chdir(tmp_path)  # Without the demo data set, so that the tool draws scenes.
    config, checkpoint = files(kind, channels)
    out, results = tmp_path / 'model.onnx', tmp_path / 'results.json'
    tool_main('export_onnx.py', config, checkpoint, out, '--shape', 64, 64)
    session = onnxruntime.InferenceSession(out)
    assert session.get_inputs()[0].shape == [1, channels, 64, 64]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about['color_type']) == COLORS[channels]
    assert json.loads(about['mean']) == ([120.0] if channels == 1 else [0.0])

    image = cv2.imread(str(next((shapes / 'coco/val2017').iterdir())))
    if channels == 4:
        image = np.dstack([image, image[..., 1]])
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), image)
    tool_main('predict_onnx.py', out, path, '--out', results)
    (found,) = json.loads(results.read_text())
    prediction = Predictor(Config.fromfile(config), str(checkpoint))(path)
    if kind == 'classifier':
        scores = np.float32(prediction.result['pred_scores'])
        assert found['pred_label'] == scores.argmax()
        assert found['pred_scores'] == pytest.approx(scores, abs=1e-4)
    else:
        class_map = cv2.imread(found['class_map'], cv2.IMREAD_UNCHANGED)
        assert class_map.shape == prediction.labels.shape


def test_what_has_no_demo_images(files, tool_error, tmp_path):
    args = ('export_onnx.py', *files('segmentor', 5), tmp_path / 'model.onnx')
    assert 'takes images of 5 channels' in tool_error(*args)
    assert not (tmp_path / 'model.onnx').exists()


def test_images_loaded_by_another_class():
    cfg = tiny_config(NAMES['segmentor'])
    loader = cfg.test_dataloader.dataset.pipeline[0]
    for kind, color in (('LoadSingleRSImageFromFile', None), ('mmcv.LoadImageFromFile', 'color')):
        loader.type = kind
        assert color_type(inference_steps(cfg)[0]) == color


@pytest.mark.parametrize('tool', ['complexity.py', 'export_onnx.py', 'predict.py'])
def test_numbers_that_disagree(files, tool_error, tmp_path, tool):
    config, checkpoint = files('segmentor', 1)
    more = [] if tool == 'complexity.py' else [checkpoint]
    more += [tmp_path / 'out'] if tool == 'export_onnx.py' else []
    more += [config.parent, '--out', tmp_path] if tool == 'predict.py' else []
    if tool == 'predict.py':
        cv2.imwrite(str(config.parent / 'x.png'), np.zeros((8, 8, 3), np.uint8))
    message = tool_error(
        tool, config, *more, '--cfg-options', 'model.data_preprocessor.mean=[1,2,3]'
    )
    assert 'the numbers of channels disagree: ' in message
    assert 'has a mean of 3 and a std of 1 values; set mean and std of 1 value' in message


def test_the_backbone_names_both_numbers():
    model = tiny_model(channels_config('classifier', 1))
    with pytest.raises(ConfigError, match=r'images of 3 channels .* in_channels=1: set in_chan'):
        model.backbone(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize('way', ['init_cfg', 'resume', 'export'])
def test_weights_for_another_number_of_channels(files, shapes, tool_error, tmp_path, way):
    checkpoint = files('classifier', 3)[1]
    config = files('classifier', 1)[0]
    args = ['train.py', config, '--work-dir', tmp_path]
    options = [f'train_dataloader.dataset.data_root={shapes}/imagenet']
    options += [f'val_dataloader.dataset.data_root={shapes}/imagenet']
    if way == 'export':
        args, options = ['export_onnx.py', config, checkpoint, tmp_path / 'model.onnx'], ['seed=0']
    elif way == 'init_cfg':
        backbone = f'checkpoint={checkpoint}', 'type=Pretrained', 'prefix=backbone'
        options += [f'model.backbone.init_cfg.{each}' for each in backbone]
    else:
        state = dict(message_hub={}, optimizer={}, param_schedulers=[], meta=dict(epoch=1, iter=1))
        checkpoint, weights = tmp_path / 'epoch_1.pth', torch.load(checkpoint)
        torch.save(weights | state, checkpoint)
        args += ['--resume', checkpoint]
    message = tool_error(*args, '--cfg-options', *options)
    assert 'is for images of 3 channels, and in_channels is 1: set in_channels=3' in message
    assert message.rstrip('.').endswith('for example by weight = weight.sum(1, keepdim=True)')


@pytest.mark.parametrize(('found', 'wanted'), [(3, 1), (3, 4), (1, 3), (3, 6)])
def test_the_advice_keeps_the_outputs_of_grey_images(found, wanted):
    """The recipe that the message gives, on images of equal channels."""
    backbone = tiny_model(channels_config('classifier', found)).backbone.state_dict()
    model = tiny_model(channels_config('classifier', wanted))
    with pytest.raises(CheckpointError) as error:
        model.backbone.load_state_dict(backbone)
    weight = backbone['stem.conv1.0.weight']
    recipe = re.search(r'for example by weight = (.*)\.$', str(error.value))[1]
    adapted = eval(recipe, dict(weight=weight))
    assert adapted.shape[1] == wanted
    torch.testing.assert_close(adapted.sum(1), weight.sum(1))
