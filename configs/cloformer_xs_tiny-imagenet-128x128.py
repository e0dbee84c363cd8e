# cloformer_xxs_tiny-imagenet-128x128.py with CloFormer-XS. Same schedule.
_base_ = 'cloformer_xxs_tiny-imagenet-128x128.py'

model = dict(backbone=dict(arch='xs'), head=dict(in_channels=352))
