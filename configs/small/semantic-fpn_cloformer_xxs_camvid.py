# Semantic FPN on CamVid, 701 street scenes of 480x360 with eleven classes (docs/small-sets.md), to
# compare initial weights in minutes. The neck is half as wide as on ADE20K.
#
# Schedule: 400 iterations x 8 crops / 468 images = 7 epochs; warm-up over the first 50, then cosine
# decay to zero. Training uses the splits train and val. Every 100 iterations are evaluated on the
# 233 images of test; nothing is chosen by the result.
_base_ = '../semantic-fpn_cloformer_xxs_ade20k.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(256, 256), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
classes = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car')
classes += ('pedestrian', 'bicyclist')
palette = [[20 * i, 255 - 20 * i, 40 * (i % 6)] for i in range(len(classes))]
dataset = dict(
    type='BaseSegDataset',
    data_root='data/camvid',
    metainfo=dict(classes=classes, palette=palette),
    ignore_index=11,  # unlabelled
)
train_sets = [
    dict(
        **dataset,
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
        pipeline=train_pipeline,
    )
    for split in ('train', 'val')
]
test_set = dict(
    **dataset,
    data_prefix=dict(img_path='images/test', seg_map_path='annotations/test'),
    pipeline=test_pipeline,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=train_sets),
)
val_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(_delete_=True, **test_set))
test_dataloader = val_dataloader
val_evaluator = dict(ignore_index=11)
test_evaluator = val_evaluator
tta_pipeline = None  # tools/test.py --tta mirrors images; the host's pipeline has other sizes.

model = dict(
    data_preprocessor=dict(size=(256, 256), seg_pad_val=11),
    neck=dict(out_channels=128),
    decode_head=dict(in_channels=[128, 128, 128, 128], num_classes=11, ignore_index=11),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(_delete_=True, max_norm=5))
train_cfg = dict(max_iters=400, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=400, begin=0, end=400, by_epoch=False),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=400, max_keep_ckpts=1))
randomness = dict(seed=0)
