# Mask R-CNN on 664 microscope images of cell nuclei from the Data Science Bowl 2018
# (docs/small-sets.md). Neck and heads are half as wide as on COCO; the anchors are half as large.
#
# Schedule: 4 epochs x 521 crops of 256x256 / 4 per batch = 4 x 131 = 524 iterations; warm-up over
# the first 50, then cosine decay to zero. Evaluation is on the 143 whole images of test.
_base_ = '../mask-rcnn_cloformer_xxs_custom.py'

masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
load, pack = dict(type='LoadImageFromFile'), dict(type='PackDetInputs')
crop = dict(type='RandomCrop', crop_size=(256, 256))
flip = dict(type='RandomFlip', prob=[0.25, 0.25], direction=['horizontal', 'vertical'])
test_pipeline = [load, dict(type='Resize', scale_factor=1.0), masks, pack]
dataset = dict(data_root='data/dsb2018/', data_prefix=dict(img='images/'))
dataset.update(metainfo=dict(classes=('nucleus',)))
train_set = dict(
    **dataset, ann_file='annotations/train.json', pipeline=[load, masks, crop, flip, pack]
)
test_set = dict(**dataset, ann_file='annotations/test.json', pipeline=test_pipeline)
train_dataloader = dict(batch_size=4, dataset=train_set)
val_dataloader = dict(batch_size=1, dataset=test_set)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/dsb2018/annotations/test.json')
test_evaluator = val_evaluator

half, heads = dict(out_channels=128), dict(in_channels=128, num_classes=1)
bbox_head = dict(**heads, fc_out_channels=256)
mask_head = dict(**heads, conv_out_channels=128)
roi_extractors = dict(bbox_roi_extractor=half, mask_roi_extractor=half)
model = dict(
    neck=half,
    rpn_head=dict(in_channels=128, feat_channels=128, anchor_generator=dict(scales=[4])),
    roi_head=dict(bbox_head=bbox_head, mask_head=mask_head, **roi_extractors),
    train_cfg=dict(rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rcnn=dict(max_per_img=400)),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=5))
train_cfg = dict(max_epochs=4, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=4, begin=0, end=4, convert_to_iter_based=True),
]
randomness = dict(seed=0)
