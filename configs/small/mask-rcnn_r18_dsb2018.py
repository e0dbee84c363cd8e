# mask-rcnn_cloformer_xxs_dsb2018.py with ResNet-18, the hosts' backbone of similar cost, from
# random weights. Same schedule.
_base_ = 'mask-rcnn_cloformer_xxs_dsb2018.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
