"""Graphs agree with the predictions of mmdet, mmseg and mmpretrain, and files with graphs."""

import copy
from importlib import import_module

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from mmcloformer.export import ExportError, export_onnx, make_graph
from mmcloformer.export.comparison import Tolerance, compare
from mmcloformer.export.segmentor import AdaptiveAveragePool
from mmcloformer.models.deploy import DeployError
from tests.test_export.tiny_models import KINDS, NAMES, config_of, tiny_config, tiny_model

# Smaller than every stride, a deepest map of one row, two sizes that no window divides, and one
# that all divide.
SIZES = [(17, 30), (64, 90), (101, 141), (225, 330), (320, 352)]


class InTorch:
    """Runs a graph in PyTorch behind the interface of an onnxruntime session."""

    def __init__(self, graph, size=('height', 'width')):
        self.graph, self.size = graph, size

    def get_inputs(self):
        return [type('Input', (), dict(shape=[1, 3, *self.size]))]

    def get_outputs(self):
        return [type('Output', (), dict(name=name)) for name in self.graph.outputs]

    def run(self, names, inputs):
        with torch.no_grad():
            results = self.graph(torch.from_numpy(inputs['images']))
        results = results if isinstance(results, tuple) else (results,)
        return [result.numpy() for result in results]


@pytest.fixture(scope='module')
def images(shapes):
    return sorted((shapes / 'coco/val2017').glob('*'))


@pytest.mark.parametrize('size', [('height', 'width'), (100, 150)])
@pytest.mark.parametrize('kind', KINDS)
def test_graph_agrees_with_predict(tiny, images, kind, size):
    cfg, model, graph = tiny(kind)
    if kind == 'classifier' and size == (100, 150):
        size = (64, 64)  # The size that its test pipeline produces.
    report = compare(InTorch(graph, size), model, graph, cfg, images, Tolerance())
    assert report.disagreements == []
    assert report.differences
    # There are instances to compare.
    if graph.outputs[0] == 'boxes':
        results = graph(torch.randn(1, 3, 128, 128))
        assert len(results[0]) > 5


def test_a_size_that_the_pipeline_does_not_make(tiny, images):
    cfg, model, graph = tiny('classifier')
    with pytest.raises(ExportError, match='export with --shape 64 64'):
        compare(InTorch(graph, (100, 150)), model, graph, cfg, images, Tolerance())


NMS = dict(type='nms', iou_threshold=0.5)


@pytest.mark.parametrize(
    ('kind', 'changes'),
    [
        ('detector', {'test_cfg.nms_pre': -1}),
        ('detector', {'test_cfg.nms': dict(NMS, class_agnostic=True, split_thr=10_000)}),
        ('detector', {'bbox_head.bbox_coder.clip_border': False}),
        ('detector', {'bbox_head.bbox_coder': dict(_delete_=True, type='TBLRBBoxCoder')}),
        ('detector', {'data_preprocessor': dict(pad_size_divisor=96, pad_value=3)}),
        ('faster-rcnn', {'test_cfg.rpn.nms_pre': 0, 'test_cfg.rcnn.max_per_img': 0}),
        ('faster-rcnn', {'roi_head.bbox_head.bbox_coder.clip_border': False}),
    ],
    ids=str,
)
def test_options_that_the_graph_follows(images, kind, changes):
    cfg = config_of(kind)
    cfg.merge_from_dict({f'model.{field}': value for field, value in changes.items()})
    model = tiny_model(cfg)
    report = compare(InTorch(make_graph(model)), model, make_graph(model), cfg, images, Tolerance())
    assert report.disagreements == []
    assert report.instances


def test_options_that_mmdet_does_not_need(images):
    cfg = config_of('detector')
    del cfg.model.test_cfg.nms_pre, cfg.model.test_cfg.score_thr
    model = tiny_model(cfg)
    graph = make_graph(model)
    assert compare(InTorch(graph), model, graph, cfg, images, Tolerance()).disagreements == []


@pytest.mark.parametrize('kind', ['faster-rcnn', 'cascade'])
def test_an_image_without_proposals(kind):
    cfg = config_of(kind)
    cfg.model.test_cfg.rpn.min_bbox_size = 1000
    results = make_graph(tiny_model(cfg))(torch.zeros(1, 3, 64, 64))
    assert [len(result) for result in results] == [0] * len(results)


@pytest.mark.parametrize(
    ('kind', 'changes', 'words'),
    [
        ('detector', {'test_cfg.nms.max_num': 5}, "'max_num': 5"),
        ('detector', {'test_cfg.nms': dict(NMS, class_agnostic=True, split_thr=10)}, 'split_thr'),
        ('faster-rcnn', {'test_cfg.rpn.nms.type': 'soft_nms'}, r'test_cfg\.rpn\.nms.*soft_nms'),
        ('detector', {'test_cfg.min_bbox_size': 40}, 'min_bbox_size'),
        ('faster-rcnn', {'roi_head.bbox_head.with_reg': False}, 'with_reg'),
        ('detector', {'bbox_head.bbox_coder.type': 'LegacyDeltaXYWHBBoxCoder'}, 'LegacyDelta'),
        ('faster-rcnn', {'roi_head.bbox_head.loss_cls': dict(
            _delete_=True, type='SeesawLoss', num_classes=4)}, 'SeesawLoss'),
        ('faster-rcnn', {'roi_head.bbox_roi_extractor.roi_layer.pool_mode': 'max'}, "'max'"),
        ('faster-rcnn', {'roi_head.bbox_roi_extractor.roi_layer': dict(
            _delete_=True, type='RoIPool', output_size=7)}, 'RoIPool'),
        ('mask-rcnn', {'test_cfg.rcnn.mask_thr_binary': 0.3}, 'mask_thr_binary is 0.3'),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_the_graph_does_not_follow(kind, changes, words):
    cfg = config_of(kind)
    cfg.merge_from_dict({f'model.{field}': value for field, value in changes.items()})
    with pytest.raises(ExportError, match=words):
        make_graph(tiny_model(cfg))


def predict_mask_itself(self, x, metas, results, rescale=False):
    return results


def test_a_head_that_predicts_in_another_way_is_refused():
    model = tiny_model(config_of('mask-rcnn'))
    kind = type(model.roi_head)
    model.roi_head.__class__ = type('Own', (kind,), dict(predict_mask=predict_mask_itself))
    with pytest.raises(ExportError, match=r'model\.roi_head is Own'):
        make_graph(model)


LEVELS = dict(segmentor=[], classifier=pytest.mark.slow, detector=pytest.mark.slow)


@pytest.mark.parametrize(
    'kind',
    [pytest.param(kind, marks=LEVELS.get(kind, pytest.mark.nightly)) for kind in KINDS],
)
def test_file_computes_the_same_at_any_size(exported, tiny, kind):
    session, graph = exported(kind), tiny(kind)[2]
    for size in SIZES:
        image = torch.randn(1, 3, *size)
        expected = InTorch(graph).run(None, dict(images=image.numpy()))
        found = session.run(None, dict(images=image.numpy()))
        for name, a, b in zip(graph.outputs, expected, found, strict=True):
            assert a.shape == b.shape, (name, size)
            assert a.dtype == b.dtype
            if name == 'class_map':
                assert (a != b).mean() < 1e-3
            elif name == 'boxes':
                np.testing.assert_allclose(a, b, atol=1e-2)
            else:
                np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize('kind', ['backbone', 'detector'])
def test_the_example_of_a_free_size_may_be_small(tiny, tmp_path, kind):
    graph = make_graph(tiny_model(tiny_config(NAMES['detector'])).backbone)
    graph = graph if kind == 'backbone' else tiny(kind)[2]
    export_onnx(graph, tmp_path / 'small.onnx', (8, 16), dynamic=True)
    session = onnxruntime.InferenceSession(tmp_path / 'small.onnx')
    images = torch.randn(1, 3, 96, 160)
    for found, expected in zip(session.run(None, {'images': images.numpy()}), graph(images)):
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3)


def test_batches(exported):
    images = np.random.RandomState(0).standard_normal((3, 3, 65, 97)).astype(np.float32)
    together = exported('segmentor').run(None, dict(images=images))[0]
    apart = [exported('segmentor').run(None, dict(images=image[None]))[0][0] for image in images]
    assert np.mean(together != apart) < 1e-3


@pytest.mark.nightly
@pytest.mark.parametrize('kind', ['detector', 'mask-rcnn'])
def test_no_instances(tiny, tmp_path, kind):
    cfg, model, _ = tiny(kind)
    graph = make_graph(model)
    graph.model.test_cfg = copy.deepcopy(cfg.model.test_cfg)
    graph.model.test_cfg.get('rcnn', graph.model.test_cfg).score_thr = 1.1
    export_onnx(graph, tmp_path / 'none.onnx', (64, 64))
    session = onnxruntime.InferenceSession(tmp_path / 'none.onnx')
    results = session.run(None, dict(images=np.zeros((1, 3, 64, 64), np.float32)))
    assert [len(result) for result in results] == [0] * len(graph.outputs)


@pytest.mark.parametrize('length', [1, 2, 5, 6, 7, 16, 33])
@pytest.mark.parametrize('size', [1, 2, 3, 6])
def test_adaptive_average_pool(size, length):
    x = torch.randn(2, 4, length, length + 3)
    expected = nn.AdaptiveAvgPool2d(size)(x)
    torch.testing.assert_close(AdaptiveAveragePool((size, size))(x), expected)


def test_model_is_not_changed(tiny):
    _, model, graph = tiny('upernet')
    assert not model.backbone.deployed
    assert graph.model.backbone.deployed
    assert any(isinstance(module, nn.AdaptiveAvgPool2d) for module in model.modules())


def test_unsupported_models_are_refused():
    with pytest.raises(ExportError, match='Conv2d cannot be exported'):
        make_graph(nn.Conv2d(3, 3, 1).eval())
    cfg = tiny_config(NAMES['segmentor'])
    cfg.model.test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    with pytest.raises(ExportError, match="set it to 'whole'"):
        make_graph(tiny_model(cfg))
    cfg = tiny_config(NAMES['segmentor'])
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=32)
    with pytest.raises(ExportError, match='test_cfg pads images'):
        make_graph(tiny_model(cfg))
    with pytest.raises(DeployError, match=r'call eval\(\)'):
        make_graph(tiny_model(tiny_config(NAMES['classifier'])).train())
    cfg = tiny_config(NAMES['mask-rcnn'])
    cfg.model.roi_head.bbox_roi_extractor.type = 'GenericRoIExtractor'
    with pytest.raises(ExportError, match=r'GenericRoIExtractor.*SingleRoIExtractor'):
        make_graph(tiny_model(cfg))
    cfg = tiny_config(NAMES['detector'])
    cfg.model.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5)
    with pytest.raises(ExportError, match='soft_nms'):
        make_graph(tiny_model(cfg))


@pytest.mark.parametrize('given', [dict(thr=0.4), dict(topk=2)])
def test_multi_label_heads(images, given):
    cfg = tiny_config(NAMES['classifier'])
    head = dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=32, **given)
    cfg.model.head = head
    model = tiny_model(cfg)
    graph = make_graph(model)
    report = compare(InTorch(graph, (64, 64)), model, graph, cfg, images, Tolerance())
    assert report.disagreements == []
    assert graph.multi_label == given


def test_a_classifier_pads_its_images(images):
    cfg = tiny_config(NAMES['classifier'])
    cfg.data_preprocessor.pad_size_divisor = 48
    model = tiny_model(cfg)
    graph = make_graph(model)
    report = compare(InTorch(graph, (64, 64)), model, graph, cfg, images, Tolerance())
    assert report.disagreements == []


def predict_itself(self, scores, samples):
    return samples


@pytest.mark.parametrize('name', ['RegressionHead', 'LinearClsHead'])
def test_other_heads_of_classifiers_are_refused(name):
    host = import_module('mmpretrain.models.heads')
    kind = getattr(host, name, None)
    if kind is None:
        pytest.skip('only one of the two host stacks has it')
    model = tiny_model(tiny_config(NAMES['classifier']))
    own = dict(_get_predictions=predict_itself) if name == 'LinearClsHead' else {}
    model.head.__class__ = type('Own', (kind,), own)
    with pytest.raises(ExportError, match='ClsHead or MultiLabelClsHead'):
        make_graph(model)
