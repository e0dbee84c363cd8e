# mask-rcnn_cloformer_xxs_dsb2018.py with ResNet-18, the hosts' backbone of similar cost, from
# random weights. Same schedule.
_base_ = 'mask-rcnn_cloformer_xxs_dsb2018.py'

# mmdet keeps the initial statistics of BatchNorm by default, which suits pre-trained weights only.
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, norm_eval=False),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
