_base_ = 'upernet_cloformer_xxs_ade20k.py'
model = dict(
    backbone=dict(arch='xs'),
    decode_head=dict(in_channels=[48, 96, 160, 352]),
    auxiliary_head=dict(in_channels=160),
)
