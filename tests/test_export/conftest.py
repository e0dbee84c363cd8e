"""Models of every task that export in seconds: all kinds of layers, a block a stage."""

import copy

import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmcloformer.apis.config import build_model
from mmcloformer.export import export_onnx, make_graph
from tests.conftest import ROOT

ARCH = dict(
    embed_dims=[16, 16, 32, 32],
    depths=[1, 1, 1, 1],
    num_heads=[2, 2, 4, 4],
    group_splits=[[1, 1], [1, 1], [2, 2], [0, 4]],
    kernel_sizes=[[3], [5], [7], [9]],
    drop_path_rate=0.0,
)
NECK = dict(in_channels=[16, 16, 32, 32], out_channels=16)
CHANGES = {
    'cloformer': dict(head=dict(in_channels=32)),
    'semantic-fpn': dict(neck=NECK, decode_head=dict(in_channels=[16] * 4, channels=16)),
    'upernet': dict(
        decode_head=dict(in_channels=NECK['in_channels'], channels=16, num_classes=5),
        auxiliary_head=dict(in_channels=32, channels=16, num_classes=5),
    ),
    'retinanet': dict(
        neck=NECK | dict(in_channels=[16, 32, 32]),
        bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
        test_cfg=dict(score_thr=0.3, nms_pre=50, max_per_img=200),
    ),
    'mask-rcnn': dict(
        neck=NECK,
        rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=16),
            bbox_head=dict(in_channels=16, fc_out_channels=16),
            mask_roi_extractor=dict(out_channels=16),
            mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1),
        ),
        test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=40), rcnn=dict(score_thr=0.2)),
    ),
}
# Deviations of the weights of heads whose outputs would all be alike.
SPREAD = {
    'retinanet': {'bbox_head.retina_cls': 0.02, 'bbox_head.retina_reg': 0.02},
    'mask-rcnn': {
        'rpn_head.rpn_cls': 0.1,
        'roi_head.bbox_head.fc_cls': 0.5,
        'roi_head.bbox_head.fc_reg': 0.1,
        'roi_head.mask_head.conv_logits': 0.5,
    },
}


def tiny_config(name):
    """A demo config, or UperNet's, with a small network."""
    kind = name.partition('_')[0]
    folder = 'configs' if kind == 'upernet' else 'configs/demo'
    cfg = Config.fromfile(ROOT / folder / f'{name}.py')
    cfg.merge_from_dict(dict(model=copy.deepcopy(CHANGES[kind])))
    cfg.model.backbone.arch = ARCH
    return cfg


def tiny_model(cfg, kind, seed=0):
    """The config's model with random weights and spread outputs."""
    torch.manual_seed(seed)
    model = build_model(cfg).eval()
    for name, deviation in SPREAD.get(kind, {}).items():
        torch.nn.init.normal_(model.get_submodule(name).weight, 0, deviation)
        torch.nn.init.zeros_(model.get_submodule(name).bias)
    return model


NAMES = {
    'classifier': 'cloformer_xxs_shapes',
    'segmentor': 'semantic-fpn_cloformer_xxs_shapes',
    'upernet': 'upernet_cloformer_xxs_ade20k',
    'detector': 'retinanet_cloformer_xxs_shapes',
    'mask-rcnn': 'mask-rcnn_cloformer_xxs_shapes',
}


@pytest.fixture(scope='session')
def tiny():
    """Config, model and graph by kind of model; made once."""
    made = {}

    def get(kind):
        if kind not in made:
            cfg = tiny_config(NAMES[kind])
            model = tiny_model(cfg, NAMES[kind].partition('_')[0])
            made[kind] = cfg, model, make_graph(model)
        init_default_scope(made[kind][0].default_scope)
        return made[kind]

    return get


@pytest.fixture(scope='session')
def exported(tiny, tmp_path_factory):
    """An onnxruntime session of a kind of model, for any size of image; exported once."""
    sessions = {}

    def get(kind):
        if kind not in sessions:
            path = tmp_path_factory.mktemp('onnx') / f'{kind}.onnx'
            export_onnx(tiny(kind)[2], path, (320, 352), dynamic=True)
            sessions[kind] = onnxruntime.InferenceSession(path)
        return sessions[kind]

    return get
