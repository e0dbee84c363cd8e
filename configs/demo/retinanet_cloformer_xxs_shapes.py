# `make demo`: the COCO config on generated scenes (make_shapes.py), trained from random weights.
# Neck and head are half as wide, because they take most of the time at this image size.
#
# Schedule: 5 epochs x 800 scenes / 4 per batch = 5 x 200 = 1,000 iterations; warm-up over the
# first 50, then cosine decay to zero. Validation and test use the held-out scenes.
_base_ = '../retinanet_cloformer_xxs_coco.py'

data_root = 'data/shapes/coco/'
metainfo = dict(
    classes=('ring', 'square', 'star', 'triangle'),
    palette=[(255, 128, 0), (0, 170, 255), (255, 220, 0), (0, 200, 90)],
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=[0.25, 0.25], direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
tta_pipeline = None  # tools/test.py --tta mirrors images; the host's pipeline has other sizes.

model = dict(
    neck=dict(out_channels=128),
    bbox_head=dict(num_classes=4, in_channels=128, feat_channels=128),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=5))
train_cfg = dict(max_epochs=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=5, begin=0, end=5, convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=1),
    visualization=dict(score_thr=0.4),
)
visualizer = dict(line_width=1)
randomness = dict(seed=0)
