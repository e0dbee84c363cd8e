# Tiny ImageNet on a GPU, its images enlarged to 128 px. All images stay in memory and are cropped
# in batches on the device (mmcloformer/datasets/in_memory.py).
#
# Schedule: 32 epochs x 100,000 images / 1,024 per batch = 32 x 98 = 3,136 iterations in bfloat16.
# Warm-up over 2 epochs, then cosine decay to one hundredth. Half of the batches are mixed, by mixup
# or CutMix. The moving average of the weights (EMAHook) is what is validated and saved.
# Batch: 1 process x 1,024 images = 1,024 = auto_scale_lr.base_batch_size.
_base_ = 'cloformer_xxs_tiny-imagenet.py'
custom_imports = dict(imports=['mmcloformer', 'mmcloformer.datasets.in_memory'])

root = 'data/tiny-imagenet-200'
files = dict(
    type='CustomDataset', data_root=root, data_prefix='train', classes=f'{root}/classes.txt'
)
train_dataloader = dict(
    batch_size=1024,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='keep_batch'),
    dataset=dict(_delete_=True, type='InMemoryImages', dataset=files),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=128, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=128),
    dict(type='PackInputs'),
]
val_dataloader = dict(num_workers=4, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

data_preprocessor = dict(type='BatchCropPreprocessor', size=128)
mixing = [dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]
model = dict(train_cfg=dict(_delete_=True, augments=mixing, probs=[0.25, 0.25]))
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(lr=3e-3))
train_cfg = dict(max_epochs=32, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, begin=2, end=32, convert_to_iter_based=True),
]
custom_hooks = [
    dict(type='EMAHook', momentum=4e-3, update_buffers=True, priority='ABOVE_NORMAL'),
    dict(type='TimeLimitHook', minutes=None),
]
auto_scale_lr = dict(base_batch_size=1024)
