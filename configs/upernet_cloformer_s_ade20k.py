_base_ = 'upernet_cloformer_xxs_ade20k.py'
model = dict(
    backbone=dict(arch='s'),
    decode_head=dict(in_channels=[64, 128, 224, 448]),
    auxiliary_head=dict(in_channels=224),
)
