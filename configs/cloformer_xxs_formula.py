# Pre-training on images of formulas (mmcloformer/formula), which need no data set: to tell 1,000
# closed waves apart. Not the paper's; its ImageNet recipe, with another length.
#
# Schedule: 100 epochs x 256,000 images / 1,024 a batch = 100 x 250 = 25,000 iterations, 5 epochs of
# them warm-up. lr 5e-4 x 1,024 / 512 = 1e-3, which --auto-scale-lr scales with the batch. On one
# GPU: --amp. In jobs of an hour: --resume --cfg-options custom_hooks.0.minutes=55.
_base_ = 'cloformer_xxs_imagenet.py'
custom_imports = dict(imports=['mmcloformer', 'mmcloformer.formula'])

data_preprocessor = dict(type='WavePreprocessor', size=224, to_rgb=False)
dataset = dict(_delete_=True, type='WaveDataset', num_classes=1000, instances=256)
train_dataloader = dict(batch_size=1024, num_workers=8, dataset=dataset)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    dataset=dict(
        _delete_=True, type='WaveDataset', num_classes=1000, instances=2, first_instance=256
    ),
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=5e-4 * 1024 / 512))
train_cfg = dict(max_epochs=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min_ratio=1e-2, begin=5, end=100, convert_to_iter_based=True
    ),
]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
custom_hooks = [dict(type='TimeLimitHook', minutes=None)]
auto_scale_lr = dict(base_batch_size=1024)
randomness = dict(seed=0)
