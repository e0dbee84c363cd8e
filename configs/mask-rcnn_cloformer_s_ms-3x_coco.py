_base_ = 'mask-rcnn_cloformer_xs_ms-3x_coco.py'
model = dict(backbone=dict(arch='s'), neck=dict(in_channels=[64, 128, 224, 448]))
