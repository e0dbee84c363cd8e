_base_ = 'mask-rcnn_cloformer_xxs_coco.py'
model = dict(backbone=dict(arch='s'), neck=dict(in_channels=[64, 128, 224, 448]))
