# RetinaNet on DeepPCB, 1,500 scans of circuit boards of 640x640 with six kinds of defects
# (docs/small-sets.md). Neck and head are half as wide as on COCO.
#
# Schedule: 8 epochs x 1,000 crops of 320x320 / 8 per batch = 8 x 125 = 1,000 iterations; warm-up
# over the first 50, then cosine decay to zero. Evaluation is on the 500 whole scans of test.
_base_ = '../retinanet_cloformer_xxs_custom.py'

load = dict(type='LoadImageFromFile')
boxes = dict(type='LoadAnnotations', with_bbox=True)
pack = dict(type='PackDetInputs')
train_pipeline = [
    load,
    boxes,
    dict(type='RandomCrop', crop_size=(320, 320)),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(12, 12)),  # Slivers at the border of a crop.
    dict(type='RandomFlip', prob=[0.25] * 3, direction=['horizontal', 'vertical', 'diagonal']),
    pack,
]
test_pipeline = [load, dict(type='Resize', scale=(640, 640)), boxes, pack]
info = dict(classes=('open', 'short', 'mousebite', 'spur', 'copper', 'pin-hole'))
dataset = dict(data_root='data/deeppcb/', data_prefix=dict(img='images/'), metainfo=info)
train_set = dict(**dataset, ann_file='annotations/trainval.json', pipeline=train_pipeline)
test_set = dict(**dataset, ann_file='annotations/test.json', pipeline=test_pipeline)
train_dataloader = dict(batch_size=8, dataset=train_set)
val_dataloader = dict(batch_size=4, dataset=test_set)
test_dataloader = val_dataloader
# VOCMetric, as CocoMetric ends in an error if iou_thrs is a list.
ap = dict(type='CocoMetric', ann_file='data/deeppcb/annotations/test.json')
val_evaluator = [ap, dict(type='VOCMetric', iou_thrs=[0.33], eval_mode='area')]
test_evaluator = val_evaluator

head = dict(in_channels=128, feat_channels=128, num_classes=6)
model = dict(neck=dict(out_channels=128), bbox_head=head)
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=5))
train_cfg = dict(max_epochs=8, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=8, begin=0, end=8, convert_to_iter_based=True),
]
randomness = dict(seed=0)
