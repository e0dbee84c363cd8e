# retinanet_cloformer_xxs_bccd.py with ResNet-18, the hosts' backbone of similar cost, from random
# weights. Same schedule.
_base_ = 'retinanet_cloformer_xxs_bccd.py'

# mmdet keeps the initial statistics of BatchNorm by default, which suits pre-trained weights only.
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, out_indices=(1, 2, 3), norm_eval=False),
    neck=dict(in_channels=[128, 256, 512]),
)
