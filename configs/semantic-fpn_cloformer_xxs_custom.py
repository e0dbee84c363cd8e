# Semantic FPN on your own images and label maps. Copy this file, edit the six assignments below
# `_base_`, and run `python tools/train.py configs/COPY.py --auto-scale-lr`. Unedited, it trains on
# the scenes that tools/dataset_converters/make_shapes.py generates. A label map is a PNG with one
# channel that holds class numbers; 255 means no class. It has the name of its image.
#
# Schedule: 4,000 iterations x 8 per batch / 800 images = 40 epochs; polynomial decay to zero.
_base_ = 'semantic-fpn_cloformer_xxs_ade20k.py'

root = 'data/shapes/ade20k'
classes = ('ground', 'ring', 'square', 'star', 'triangle')  # In the order of their numbers.
zero_is_void = True  # Then 0 means no class, and the classes are 1, 2, ...; else they are 0, 1, ...
train = dict(img_path='images/training', seg_map_path='annotations/training')
val = dict(img_path='images/validation', seg_map_path='annotations/validation')
img_suffix = '.jpg'  # Of all images; label maps are .png.

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(type='BaseSegDataset', data_root=root, reduce_zero_label=zero_is_void)
dataset.update(metainfo=dict(classes=classes), img_suffix=img_suffix)
train_dataloader = dict(
    batch_size=8, dataset=dict(**dataset, data_prefix=train, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(**dataset, data_prefix=val, pipeline=test_pipeline))
test_dataloader = val_dataloader
tta_pipeline = None  # tools/test.py --tta mirrors images; the inherited scales are a benchmark's.

weights = dict(type='Pretrained', checkpoint='mmcloformer://cloformer_xxs_tiny-imagenet')
model = dict(backbone=dict(init_cfg=weights), decode_head=dict(num_classes=len(classes)))
train_cfg = dict(max_iters=4000, val_interval=500)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, end=4000, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=2))
