"""Small models of every task, with every kind of layer and one block per stage."""

import copy

import torch
from mmengine.config import Config

from mmcloformer.apis.config import build_model
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
# Standard deviations for the weights of layers whose default makes all outputs alike.
SPREAD = dict(
    retina_cls=0.02, retina_reg=0.02, rpn_cls=0.1, fc_cls=0.5, fc_reg=0.1, conv_logits=0.5
)


def tiny_config(name):
    """Return a demo config, or that of UperNet, with a small network."""
    kind = name.partition('_')[0]
    folder = 'configs' if kind == 'upernet' else 'configs/demo'
    cfg = Config.fromfile(ROOT / folder / f'{name}.py')
    cfg.merge_from_dict(dict(model=copy.deepcopy(CHANGES[kind])))
    cfg.model.backbone.arch = ARCH
    return cfg


def tiny_model(cfg, seed=0):
    """Build the model of a config with random weights and distinct outputs."""
    torch.manual_seed(seed)
    model = build_model(cfg).eval()
    for path, module in model.named_modules():
        if deviation := SPREAD.get(path.rpartition('.')[2]):
            torch.nn.init.normal_(module.weight, 0, deviation)
            torch.nn.init.zeros_(module.bias)
    return model


def without_masks(cfg):
    """Make Faster R-CNN of Mask R-CNN."""
    cfg.model.type = 'FasterRCNN'
    for name in ('mask_head', 'mask_roi_extractor'):
        cfg.model.roi_head.pop(name)


def in_stages(cfg):
    """Make Cascade Mask R-CNN of Mask R-CNN, with one class-agnostic stage of two."""
    head = cfg.model.roi_head
    cfg.model.type, head.type = 'CascadeRCNN', 'CascadeRoIHead'
    head.update(num_stages=2, stage_loss_weights=[1, 0.5])
    stages = [copy.deepcopy(head.bbox_head) for _ in range(2)]
    stages[0].reg_class_agnostic = True
    head.bbox_head = stages
    cfg.model.train_cfg.rcnn = [cfg.model.train_cfg.rcnn] * 2


NAMES = {
    'classifier': 'cloformer_xxs_shapes',
    'segmentor': 'semantic-fpn_cloformer_xxs_shapes',
    'upernet': 'upernet_cloformer_xxs_ade20k',
    'detector': 'retinanet_cloformer_xxs_shapes',
    'mask-rcnn': 'mask-rcnn_cloformer_xxs_shapes',
}
VARIANTS = {'faster-rcnn': without_masks, 'cascade': in_stages}
KINDS = (*NAMES, *VARIANTS)


def config_of(kind):
    """Return the configuration of one of `KINDS`."""
    cfg = tiny_config(NAMES[kind if kind in NAMES else 'mask-rcnn'])
    VARIANTS.get(kind, lambda cfg: None)(cfg)
    return cfg
