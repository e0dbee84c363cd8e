# UPerNet on ADE20K, 160k iterations, with an auxiliary FCN head on stage 3.
# No UPerNet result of the paper is known. The settings are inferred: they are Swin's.
#
# Schedule: 160,000 iterations x 16 per batch / 20,210 images = 127 epochs; warm-up over the first
# 1,500, then linear decay (polynomial with power 1) to zero.
# Images: training crops of 512x512; testing on whole images with a shorter side of 512 (mmseg's
# ade20k).
# Batch: 8 GPUs x 2 images = 16 = auto_scale_lr.base_batch_size.
_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]
custom_imports = dict(imports=['mmcloformer'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(_delete_=True, type='CloFormer', arch='xxs', out_indices=(0, 1, 2, 3)),
    decode_head=dict(in_channels=[32, 64, 128, 256], num_classes=150),
    auxiliary_head=dict(in_channels=128, num_classes=150),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=6e-5, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
sync_bn = 'torch'  # As in the released network. On a CPU the tools turn it off.
