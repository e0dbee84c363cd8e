# semantic-fpn_cloformer_xxs_camvid.py with ResNet-18, the hosts' backbone of similar cost, from
# random weights. Same schedule.
_base_ = 'semantic-fpn_cloformer_xxs_camvid.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=18,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='BN'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
