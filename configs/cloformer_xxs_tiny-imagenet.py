# Tiny ImageNet (100,000 training images of 64x64, 200 classes): small enough to train on two CPU
# cores. docs/tiny-imagenet.md describes the data and how to train in several sessions.
#
# Schedule: 30 epochs x 100,000 images / 128 per batch = 30 x 782 = 23,460 iterations. One epoch of
# warm-up, a constant learning rate at 48 px up to epoch 22, then linear decay to one hundredth at
# 64 px. A step at 48 px takes two thirds of the time. The moving average of the weights (EMAHook)
# is what is validated and saved.
# Batch: 1 process x 128 images = 128 = auto_scale_lr.base_batch_size.
_base_ = 'cloformer_xxs_imagenet.py'

crop = dict(type='RandomResizedCrop', crop_ratio_range=(0.35, 1.0), backend='cv2')
crop.update(interpolation='bicubic')
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
load = dict(type='LoadImageFromFile')
pack = dict(type='PackInputs')
train_pipeline = [load, dict(**crop, scale=48), flip, pack]
train_pipeline_64 = [load, dict(**crop, scale=64), flip, pack]
test_pipeline = [
    load,
    # These two steps leave the data set's images as they are; they fit larger photos to the model.
    dict(type='ResizeEdge', scale=64, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=64),
    pack,
]
root = 'data/tiny-imagenet-200'
dataset = dict(_delete_=True, type='CustomDataset', data_root=root, classes=f'{root}/classes.txt')
train_dataset = dict(**dataset, data_prefix='train', pipeline=train_pipeline)
test_dataset = dict(**dataset, data_prefix='val', pipeline=test_pipeline)
train_dataloader = dict(batch_size=128, num_workers=1, dataset=train_dataset)
val_dataloader = dict(batch_size=250, num_workers=1, dataset=test_dataset)
test_dataloader = val_dataloader

data_preprocessor = dict(num_classes=200)
model = dict(head=dict(num_classes=200), train_cfg=None)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3, fused=True))
train_cfg = dict(max_epochs=30)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=1, convert_to_iter_based=True),
    dict(
        type='LinearLR',
        start_factor=1.0,
        end_factor=0.01,
        begin=22,
        end=30,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(type='EMAHook', momentum=1e-3, update_buffers=True, priority='ABOVE_NORMAL'),
    dict(type='TimeLimitHook', minutes=None),
    dict(
        type='SwitchRecipeHook',
        schedule=[dict(action_epoch=23, train_pipeline=train_pipeline_64)],
    ),
]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=128)
randomness = dict(seed=0)
