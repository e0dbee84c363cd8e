# Mask R-CNN on COCO, 3x schedule, multi-scale training.
# The settings are inferred, as for 1x; the scales are those of PVTv2 and Swin.
#
# Schedule: 36 epochs x 7,330 iterations = 263,880; learning rate x 0.1 after epochs 27 and 33.
# Scales: shorter side 480, 512, ..., 800 pixels, longer side at most 1333.
_base_ = 'mask-rcnn_cloformer_xs_coco.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(480, 801, 32)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
