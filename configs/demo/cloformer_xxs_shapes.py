# `make demo-all`: the ImageNet config on crops of generated scenes (make_shapes.py), trained from
# random weights at 64x64, without mixup and cutmix.
#
# Schedule: 4 epochs x 1,800 crops / 32 per batch = 4 x 57 = 228 iterations; warm-up over the
# first 50, then cosine decay to zero. Validation and test use crops of the held-out scenes.
_base_ = '../cloformer_xxs_imagenet.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), interpolation='bicubic'),
    dict(type='RandomFlip', prob=[0.25, 0.25], direction=['horizontal', 'vertical']),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), interpolation='bicubic'),
    dict(type='PackInputs'),
]
dataset = dict(
    data_root='data/shapes/imagenet', metainfo=dict(classes=('ring', 'square', 'star', 'triangle'))
)
train_dataloader = dict(
    batch_size=32, num_workers=2, dataset=dict(**dataset, pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=32, num_workers=2, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

data_preprocessor = dict(num_classes=4)
model = dict(head=dict(num_classes=4), train_cfg=None)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=4, begin=0, end=4, convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=1),
    visualization=dict(resize=256),
)
randomness = dict(seed=0)
