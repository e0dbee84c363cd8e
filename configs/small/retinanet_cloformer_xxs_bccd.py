# RetinaNet on BCCD, 364 photos of blood cells with three classes (docs/small-sets.md), to compare
# initial weights in minutes. Neck and head are half as wide as on COCO; the photos are halved.
#
# Schedule: 6 epochs x 292 photos / 4 per batch = 6 x 73 = 438 iterations; warm-up over the first
# 50, then cosine decay to zero. Training uses the splits train and val. Evaluation is on the
# 72 photos of test, after every epoch; nothing is chosen by the result.
_base_ = '../retinanet_cloformer_xxs_coco.py'

load = dict(type='LoadImageFromFile')
boxes = dict(type='LoadAnnotations', with_bbox=True)
size = dict(type='Resize', scale=(320, 240))
flip = dict(type='RandomFlip', prob=[0.25, 0.25], direction=['horizontal', 'vertical'])
pack = dict(type='PackDetInputs')
dataset = dict(type='CocoDataset', data_root='data/bccd/', data_prefix=dict(img='images/'))
dataset.update(metainfo=dict(classes=('RBC', 'WBC', 'Platelets')))
train_sets = [
    dict(**dataset, ann_file=f'annotations/{split}.json', pipeline=[load, boxes, size, flip, pack])
    for split in ('train', 'val')
]
test_set = dict(
    ann_file='annotations/test.json', test_mode=True, pipeline=[load, size, boxes, pack]
)
train_dataloader = dict(
    batch_size=4, dataset=dict(_delete_=True, type='ConcatDataset', datasets=train_sets)
)
val_dataloader = dict(batch_size=4, dataset=dict(_delete_=True, **dataset, **test_set))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/bccd/annotations/test.json')
test_evaluator = val_evaluator
tta_pipeline = None  # tools/test.py --tta mirrors images; the host's pipeline has other sizes.

head = dict(num_classes=3, in_channels=128, feat_channels=128)
model = dict(neck=dict(out_channels=128), bbox_head=head)
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=5))
train_cfg = dict(max_epochs=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=6, begin=0, end=6, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
