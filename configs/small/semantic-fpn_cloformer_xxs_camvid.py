# Semantic FPN on CamVid, 701 street scenes of 480x360 with eleven classes (docs/small-sets.md), to
# compare initial weights in minutes. Model and optimizer are the demo's at a lower learning rate.
#
# Schedule: 400 iterations x 8 crops / 468 images = 7 epochs; warm-up over the first 50, then cosine
# decay to zero. Training uses the splits train and val. The model is evaluated every 100 iterations
# on the 233 images of test; nothing is chosen by the result.
_base_ = '../demo/semantic-fpn_cloformer_xxs_shapes.py'

load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
pack = dict(type='PackSegInputs')
crop = dict(type='RandomCrop', crop_size=(256, 256), cat_max_ratio=0.75)
train_pipeline = [*load, crop, dict(type='RandomFlip', prob=0.5), pack]
test_pipeline = [*load, pack]
classes = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence')
classes += ('car', 'pedestrian', 'bicyclist')
palette = [[20 * i, 255 - 20 * i, 40 * (i % 6)] for i in range(11)]
dataset = dict(type='BaseSegDataset', data_root='data/camvid', ignore_index=11)  # Unlabelled.
dataset.update(metainfo=dict(classes=classes, palette=palette))
prefixes = {
    split: dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
    for split in ('train', 'val', 'test')
}
train_sets = [
    dict(**dataset, data_prefix=prefixes[split], pipeline=train_pipeline)
    for split in ('train', 'val')
]
test_set = dict(**dataset, data_prefix=prefixes['test'], pipeline=test_pipeline)
train_set = dict(_delete_=True, type='ConcatDataset', datasets=train_sets)
train_dataloader = dict(batch_size=8, dataset=train_set)
val_dataloader = dict(dataset=dict(_delete_=True, **test_set))
test_dataloader = val_dataloader
val_evaluator = dict(ignore_index=11)
test_evaluator = val_evaluator

preprocessor = dict(size=(256, 256), seg_pad_val=11)
head = dict(num_classes=11, ignore_index=11)
model = dict(data_preprocessor=preprocessor, decode_head=head)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=400, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=400, begin=0, end=400, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=400))
