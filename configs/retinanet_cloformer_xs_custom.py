# RetinaNet on your own data in COCO format. Copy this file, edit the four assignments below
# `_base_`, and run `python tools/train.py configs/COPY.py --auto-scale-lr`, which scales the
# learning rate to your number of GPUs. Unedited, it trains on the scenes that
# tools/dataset_converters/make_shapes.py generates.
# The schedule is 12 epochs, as on COCO.
_base_ = 'retinanet_cloformer_xs_coco.py'

root = 'data/shapes/coco/'
classes = ('ring', 'square', 'star', 'triangle')  # As in the annotation files, in the same order.
train = dict(ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'))
val = dict(ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'))

dataset = dict(data_root=root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(**dataset, **train))
val_dataloader = dict(dataset=dict(**dataset, **val))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=root + val['ann_file'])
test_evaluator = val_evaluator
model = dict(bbox_head=dict(num_classes=len(classes)))
# To start from a pre-trained classifier, or from a detector with any number of classes:
# model['backbone'] = dict(init_cfg=dict(type='Pretrained', checkpoint='classifier.pth'))
# load_from = 'detector.pth'
