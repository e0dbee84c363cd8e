_base_ = 'semantic-fpn_cloformer_xxs_ade20k.py'
model = dict(backbone=dict(arch='s'), neck=dict(in_channels=[64, 128, 224, 448]))
