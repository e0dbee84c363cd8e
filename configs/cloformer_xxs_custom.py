# Classifier of your own images, one folder per class. Copy this file, edit the two assignments
# below `_base_`, and run `python tools/train.py configs/COPY.py --auto-scale-lr`. Unedited, it
# trains on the crops that tools/dataset_converters/make_shapes.py generates.
#
# Schedule: 50 epochs x 1,800 crops / 64 per batch = 50 x 29 = 1,450 iterations; 5 epochs of
# warm-up, then cosine decay to a hundredth.
_base_ = 'cloformer_xxs_imagenet.py'

root = 'data/shapes/imagenet'  # With the folders train/CLASS and val/CLASS.
classes = ('ring', 'square', 'star', 'triangle')  # The names of the folders, sorted.

dataset = dict(data_root=root, metainfo=dict(classes=classes))
train_dataloader = dict(batch_size=64, dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

weights = dict(type='Pretrained', checkpoint='mmcloformer://cloformer_xxs_tiny-imagenet')
data_preprocessor = dict(num_classes=len(classes))
model = dict(backbone=dict(init_cfg=weights), head=dict(num_classes=len(classes)))
train_cfg = dict(max_epochs=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, begin=5, end=50, convert_to_iter_based=True),
]
