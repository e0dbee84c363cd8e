_base_ = 'semantic-fpn_cloformer_xxs_ade20k.py'
model = dict(backbone=dict(arch='xs'), neck=dict(in_channels=[48, 96, 160, 352]))
