# Your own data in COCO's format: copy this file, set the four lines below `_base_`, and run
# `python tools/train.py configs/COPY.py --auto-scale-lr`, which fits the learning rate to the
# number of your GPUs. As it stands it trains on the scenes that make_shapes.py draws.
# Schedule: as on COCO, 12 epochs of however many images there are.
_base_ = 'retinanet_cloformer_xs_coco.py'

root = 'data/shapes/coco/'
classes = ('ring', 'square', 'star', 'triangle')  # The files' names, in their order.
train = dict(ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'))
val = dict(ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'))

dataset = dict(data_root=root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(**dataset, **train))
val_dataloader = dict(dataset=dict(**dataset, **val))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=root + val['ann_file'])
test_evaluator = val_evaluator
model = dict(bbox_head=dict(num_classes=len(classes)))
# Start from a classifier, or from a detector of any number of classes:
# model['backbone'] = dict(init_cfg=dict(type='Pretrained', checkpoint='classifier.pth'))
# load_from = 'detector.pth'
