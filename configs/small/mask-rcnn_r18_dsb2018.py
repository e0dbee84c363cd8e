# mask-rcnn_cloformer_xxs_dsb2018.py with ResNet-18, the hosts' backbone of similar cost, from
# random weights. Same schedule.
_base_ = 'mask-rcnn_cloformer_xxs_dsb2018.py'

# mmdet keeps the initial statistics of BatchNorm by default, which suits pre-trained weights only.
resnet = dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3), norm_eval=False)
model = dict(
    backbone=dict(_delete_=True, **resnet),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
