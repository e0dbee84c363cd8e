# Classifier of your own images, one folder per class. Copy this file, edit the three assignments
# below `_base_`, and run `python tools/train.py configs/COPY.py --auto-scale-lr`. Unedited, it
# trains on the crops that tools/dataset_converters/make_shapes.py generates.
#
# Schedule: 20 epochs x 1,800 crops / 64 per batch = 20 x 29 = 580 iterations; 2 epochs of warm-up,
# then cosine decay to a hundredth. The moving average of the weights (EMAHook) is what is validated
# and saved. Crops, flips and the rate are those of small/cloformer_xxs_imagenette.py: a network
# that starts from weights needs none of the strong augmentation of 300 epochs from scratch.
_base_ = 'cloformer_xxs_imagenet.py'

root = 'data/shapes/imagenet'  # With the folders train/CLASS and val/CLASS.
classes = ('ring', 'square', 'star', 'triangle')  # The names of the folders, sorted.
size = 128  # Of a training image, in pixels; 224 takes three times as long.

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.35, 1.0), backend='cv2'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=size * 8 // 7, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
dataset = dict(data_root=root, metainfo=dict(classes=classes))
train_dataloader = dict(batch_size=64, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

weights = dict(type='Pretrained', checkpoint='mmcloformer://cloformer_xxs_tiny-imagenet')
data_preprocessor = dict(num_classes=len(classes))
model = dict(backbone=dict(init_cfg=weights), head=dict(num_classes=len(classes)), train_cfg=None)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, begin=2, end=20, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', momentum=5e-3, update_buffers=True, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(base_batch_size=64)
