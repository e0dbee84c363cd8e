# semantic-fpn_cloformer_xxs_2k_camvid.py with ResNet-18, the hosts' backbone of similar cost, from
# random weights. Same schedule.
_base_ = 'semantic-fpn_cloformer_xxs_2k_camvid.py'

norm = dict(type='BN')
resnet = dict(type='ResNetV1c', depth=18, out_indices=(0, 1, 2, 3), norm_cfg=norm)
model = dict(
    backbone=dict(_delete_=True, **resnet),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
