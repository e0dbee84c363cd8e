# semantic-fpn_cloformer_xxs_camvid.py trained longer, from the weights of the package, on images of
# random size and colours.
#
# Schedule: 2,000 iterations x 4 crops / 468 images = 17 epochs; warm-up over the first 100, then
# cosine decay to zero. Evaluated every 250 iterations.
_base_ = 'semantic-fpn_cloformer_xxs_camvid.py'

train_pipeline = [
    *_base_.load,
    dict(type='RandomResize', scale=(480, 360), ratio_range=(0.75, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(320, 320), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_sets = [dict(each, pipeline=train_pipeline) for each in _base_.train_sets]
train_dataloader = dict(batch_size=4, dataset=dict(datasets=train_sets))
weights = dict(type='Pretrained', checkpoint='mmcloformer://cloformer_xxs_tiny-imagenet')
model = dict(data_preprocessor=dict(size=(320, 320)), backbone=dict(init_cfg=weights))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=2000, val_interval=250)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=2000, begin=0, end=2000, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=250))
