# Semantic FPN on ADE20K, 80k iterations.
# The paper's settings were not published. These are LITv2's and FAT's, a later network of the same
# authors (docs/reproduce.md).
#
# Schedule: 80,000 iterations x 16 per batch / 20,210 images = 63 epochs; polynomial decay with
# power 0.9 to zero; the sources end at 1e-6, which --auto-scale-lr would not scale.
# Images: training crops of 512x512; testing on whole images with a shorter side of 512 (mmseg's
# ade20k).
# Batch: 8 GPUs x 2 images = 16 = auto_scale_lr.base_batch_size.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_80k.py',
]
custom_imports = dict(imports=['mmcloformer'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(_delete_=True, type='CloFormer', arch='xxs', out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[32, 64, 128, 256]),
    decode_head=dict(num_classes=150),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4),
)
param_scheduler = [
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=80000, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
sync_bn = 'torch'  # As in the released network. On a CPU the tools turn it off.
