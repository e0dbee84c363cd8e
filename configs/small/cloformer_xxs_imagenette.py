# Imagenette (9,469 training and 3,925 validation images of 10 classes of ImageNet, none of which is
# in Tiny ImageNet) at 128 px, in the budget of its public leaderboard. Starts from random weights;
# docs/small-sets.md has the data, the command that starts from the package's weights, and results.
#
# Schedule: 5 epochs x 9,469 images / 64 per batch = 5 x 148 = 740 iterations; one epoch of warm-up,
# then cosine decay to a hundredth. The moving average of the weights is what is validated.
_base_ = '../cloformer_xxs_tiny-imagenet.py'

epochs = 5
crop = dict(type='RandomResizedCrop', scale=128, crop_ratio_range=(0.35, 1.0), backend='cv2')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(**crop, interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=146, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=128),
    dict(type='PackInputs'),
]
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/imagenette')
train_dataset = dict(**dataset, data_prefix='train', pipeline=train_pipeline)
test_dataset = dict(**dataset, data_prefix='val', pipeline=test_pipeline)
train_dataloader = dict(batch_size=64, dataset=train_dataset)
val_dataloader = dict(batch_size=100, dataset=test_dataset)
test_dataloader = val_dataloader

data_preprocessor = dict(num_classes=10)
model = dict(head=dict(num_classes=10))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, begin=1, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', momentum=5e-3, update_buffers=True, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(base_batch_size=64)
