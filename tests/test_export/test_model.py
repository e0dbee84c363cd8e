import pytest
import torch
from mmengine.config import ConfigDict

from mmcloformer.export import ExportError, export_onnx
from mmcloformer.export.model import describe
from tests.test_export.tiny_models import NAMES, tiny_config


def test_description_of_every_task(tiny):
    cfg, _, graph = tiny('detector')
    about = describe(cfg, graph, ('a',), None)
    assert about['task'] == 'detection'
    assert about['channels'] == 'RGB'
    assert about['mean'] == [123.675, 116.28, 103.53]
    assert about['multi_label'] is None
    resize = dict(type='Resize', scale=(128, 128), keep_ratio=True)
    assert about['steps'] == [resize | dict(interpolation='bilinear', backend='cv2')]
    # A fixed size that the images have to fit into takes the place of the config's.
    (fit,) = describe(cfg, graph, ('a',), (64, 96))['steps']
    assert (fit['type'], fit['shape']) == ('Fit', (64, 96))
    # The config's own step, where that makes this size.
    cfg = tiny_config(NAMES['detector'])
    own = dict(type='Resize', scale=(96, 64), keep_ratio=False, interpolation='bicubic')
    cfg.test_dataloader.dataset.pipeline[1] = own
    assert describe(cfg, graph, ('a',), (64, 96))['steps'] == [own | dict(backend='cv2')]
    (fit,) = describe(cfg, graph, ('a',), (96, 64))['steps']
    assert (fit['type'], fit['interpolation']) == ('Fit', 'bicubic')
    cfg, _, graph = tiny('classifier')
    (step,) = describe(cfg, graph, ('a',), (64, 64))['steps']
    assert (step['scale'], step['interpolation']) == ((64, 64), 'bicubic')


@pytest.mark.parametrize(('name', 'channels'), [('rgb_to_bgr', 'RGB'), ('other', 'BGR')])
def test_the_order_of_channels_is_that_of_the_model(tiny, name, channels):
    cfg = tiny_config(NAMES['detector'])
    cfg.model.data_preprocessor.pop('bgr_to_rgb')
    cfg.model.data_preprocessor[name] = True
    assert describe(cfg, tiny('detector')[2], (), None)['channels'] == channels


@pytest.mark.parametrize(
    'step', [dict(type='RandomFlip', prob=0.5), dict(type='Resize', scale_factor=0.5)]
)
def test_a_step_that_cannot_be_described(tiny, step):
    cfg = tiny_config(NAMES['detector'])
    cfg.test_dataloader.dataset.pipeline.insert(1, ConfigDict(step))
    with pytest.raises(ExportError, match='which cannot be exported'):
        describe(cfg, tiny('detector')[2], (), None)


def test_what_torch_cannot_export_says_which_torch_can(tiny, tmp_path, monkeypatch):
    def export(*args, **kwargs):
        raise torch.onnx.OnnxExporterError('Failed') from RuntimeError('no such operation\nmore')

    monkeypatch.setattr(torch.onnx, 'export', export)
    with pytest.raises(ExportError, match=r'model: no such operation\. .* need torch \d\.\d'):
        export_onnx(tiny('detector')[2], tmp_path / 'model.onnx', (64, 64))
    assert not (tmp_path / 'model.onnx').exists()
