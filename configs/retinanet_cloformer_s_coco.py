_base_ = 'retinanet_cloformer_xxs_coco.py'
model = dict(backbone=dict(arch='s'), neck=dict(in_channels=[128, 224, 448]))
