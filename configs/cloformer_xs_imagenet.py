_base_ = 'cloformer_xxs_imagenet.py'
model = dict(backbone=dict(arch='xs'), head=dict(in_channels=352))
