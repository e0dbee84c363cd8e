# `make demo-all`: the ADE20K config on generated scenes (make_shapes.py), trained from random
# weights, with a neck half as wide.
#
# Schedule: 600 iterations x 4 per batch / 800 scenes = 3 epochs; warm-up over the first 50, then
# cosine decay to zero. Validation and test use the held-out scenes.
_base_ = '../semantic-fpn_cloformer_xxs_ade20k.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=[0.25, 0.25], direction=['horizontal', 'vertical']),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',  # ADE20KDataset accepts only its own classes.
    data_root='data/shapes/ade20k',
    metainfo=dict(
        classes=('ground', 'ring', 'square', 'star', 'triangle'),
        palette=[(96, 96, 96), (255, 128, 0), (0, 170, 255), (255, 220, 0), (0, 200, 90)],
    ),
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=4, num_workers=2, dataset=dict(**dataset, pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
tta_pipeline = None  # tools/test.py --tta mirrors images; the host's pipeline has other sizes.

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    neck=dict(out_channels=128),
    decode_head=dict(in_channels=[128, 128, 128, 128], num_classes=5),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(_delete_=True, max_norm=5))
train_cfg = dict(max_iters=600, val_interval=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=600, begin=0, end=600, by_epoch=False),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=200, max_keep_ckpts=1))
randomness = dict(seed=0)
