_base_ = 'mask-rcnn_cloformer_xxs_coco.py'
model = dict(backbone=dict(arch='xs'), neck=dict(in_channels=[48, 96, 160, 352]))
