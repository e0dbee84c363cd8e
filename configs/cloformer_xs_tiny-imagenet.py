# Tiny ImageNet with CloFormer-XS on a CPU. Training starts from the weights of CloFormer-XXS, which
# tools/model_converters/widen_checkpoint.py has made as wide as XS (docs/tiny-imagenet.md).
#
# Schedule: 2,000 iterations x 128 per batch / 100,000 images = 2.6 epochs; warm-up over the first
# 100, then cosine decay to one hundredth. Crops have 96 px and test images 128 px: a crop is a part
# of an image, so that objects have about the same size in both.
_base_ = 'cloformer_xxs_tiny-imagenet.py'

load_from = 'work_dirs/cloformer_xs_widened.pth'
crop = dict(type='RandomResizedCrop', scale=96, crop_ratio_range=(0.35, 1.0), backend='cv2')
crop.update(interpolation='bicubic')
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
load = dict(type='LoadImageFromFile')
pack = dict(type='PackInputs')
train_dataloader = dict(dataset=dict(pipeline=[load, crop, flip, pack]))
resize = dict(type='ResizeEdge', scale=128, edge='short', backend='pillow', interpolation='bicubic')
test_pipeline = [load, resize, dict(type='CenterCrop', crop_size=128), pack]
val_dataloader = dict(batch_size=50, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(backbone=dict(arch='xs'), head=dict(in_channels=352))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2000, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=False, begin=100, end=2000),
]
custom_hooks = [
    dict(type='EMAHook', momentum=4e-3, update_buffers=True, priority='ABOVE_NORMAL'),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=100), logger=dict(interval=50))
log_processor = dict(by_epoch=False)
