_base_ = 'cloformer_xxs_imagenet.py'
model = dict(backbone=dict(arch='s'), head=dict(in_channels=448))
