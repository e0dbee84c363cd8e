# Mask R-CNN on COCO, 3x schedule, multi-scale training.
# The paper's settings were not published. These are those of PVTv2-B2: learning rate 1e-4, weight
# decay 0.05 except on norms, and DETR's augmentation as in mmdet's Swin configs, one of two
# policies with equal probability: resizing, or resizing, cropping and resizing.
#
# Schedule: 36 epochs x 7,330 iterations = 263,880; learning rate x 0.1 after epochs 27 and 33.
# Scales: shorter side 480, 512, ..., 800 pixels, longer side at most 1333.
_base_ = 'mask-rcnn_cloformer_xs_coco.py'

scales = [(1333, side) for side in range(480, 801, 32)]
resize = dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)
enlarge = dict(resize, scales=[(1333, 400), (1333, 500), (1333, 600)])
crop = dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600))
crop.update(allow_negative_crop=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[[resize], [enlarge, crop, resize]]),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05))
train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
