_base_ = 'retinanet_cloformer_xxs_coco.py'
model = dict(backbone=dict(arch='xs'), neck=dict(in_channels=[96, 160, 352]))
