# RetinaNet on your own data in COCO format. Copy this file, edit the four assignments below
# `_base_`, and run `python tools/train.py configs/COPY.py --auto-scale-lr`, which scales the
# learning rate to your number of GPUs. Unedited, it trains on the scenes that
# tools/dataset_converters/make_shapes.py generates.
#
# Schedule: 12 epochs x 800 scenes / 2 per batch = 12 x 400 = 4,800 iterations; learning rate x 0.1
# after epochs 8 and 11, as on COCO. The warm-up is 2 epochs, so that it fits few images: with 40
# images / 2 per batch = 20 iterations per epoch, COCO's 500 iterations would be 25 epochs.
_base_ = 'retinanet_cloformer_xxs_coco.py'

root = 'data/shapes/coco'
classes = ('ring', 'square', 'star', 'triangle')  # As in the annotation files, in the same order.
train = dict(ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'))
val = dict(ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'))

dataset = dict(data_root=root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(**dataset, **train))
val_dataloader = dict(dataset=dict(**dataset, **val))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{root}/{val["ann_file"]}')
test_evaluator = val_evaluator
tta_pipeline = None  # tools/test.py --tta mirrors images; the inherited scales are a benchmark's.

# These weights, or those of a classifier of your own: checkpoint='classifier.pth'. To start from a
# detector instead, with any number of classes, add: load_from = 'detector.pth'
weights = dict(type='Pretrained', checkpoint='mmcloformer://cloformer_xxs_tiny-imagenet')
model = dict(backbone=dict(init_cfg=weights), bbox_head=dict(num_classes=len(classes)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=2, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, begin=0, end=12),
]
