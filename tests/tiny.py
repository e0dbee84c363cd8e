"""Configs that train in a tenth of a second an iteration, for the tests that start many runs."""

from tests.conftest import ROOT

_COMMON = """
_base_ = '{root}/configs/demo/{name}.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    {annotations}
    dict(type='Resize', scale=(64, 64)),
    dict(type='RandomFlip', prob={flip}),
    {pack},
]
default_hooks = dict(logger=dict(interval=1))
"""

# Epochs of four iterations, a checkpoint each; two workers that live for all epochs.
_DETECTOR = """
train_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True,
    dataset=dict(data_root='{shapes}/coco/', pipeline=train_pipeline),
)
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
model = dict(
    backbone=dict(drop_path_rate=0.2),
    neck=dict(out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
)
train_cfg = dict(max_epochs={epochs})
param_scheduler = [dict(type='CosineAnnealingLR', T_max={epochs}, convert_to_iter_based=True)]
"""

# A checkpoint every three iterations, validation every four.
_SEGMENTOR = """
train_dataloader = dict(
    batch_size=2, num_workers=1, persistent_workers=True,
    dataset=dict(data_root='{shapes}/ade20k', pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{shapes}/ade20k', indices=1),
)
test_dataloader = val_dataloader
model = dict(
    backbone=dict(drop_path_rate=0.2),
    data_preprocessor=dict(size=(64, 64)),
    neck=dict(out_channels=16),
    decode_head=dict(in_channels=[16, 16, 16, 16], channels=16),
)
train_cfg = dict(max_iters={iters}, val_interval=4)
param_scheduler = [dict(type='CosineAnnealingLR', T_max={iters}, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=3, max_keep_ckpts=2))
"""

_CLASSIFIER = """
train_dataloader = dict(
    batch_size=4, num_workers=0,
    dataset=dict(data_root='{shapes}/imagenet', pipeline=train_pipeline),
)
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
train_cfg = dict(max_epochs={epochs})
param_scheduler = None
"""


def write_detector(path, shapes, *, epochs):
    """RetinaNet, epoch-based."""
    common = _COMMON.format(
        root=ROOT,
        name='retinanet_cloformer_xxs_shapes',
        annotations="dict(type='LoadAnnotations', with_bbox=True),",
        flip=0.5,
        pack="dict(type='PackDetInputs')",
    )
    path.write_text(common + _DETECTOR.format(shapes=shapes, epochs=epochs))
    return path


def write_segmentor(path, shapes, *, iters):
    """Semantic FPN, iteration-based."""
    common = _COMMON.format(
        root=ROOT,
        name='semantic-fpn_cloformer_xxs_shapes',
        annotations="dict(type='LoadAnnotations', reduce_zero_label=True),",
        flip=0.5,
        pack="dict(type='PackSegInputs')",
    )
    path.write_text(common + _SEGMENTOR.format(shapes=shapes, iters=iters))
    return path


def write_classifier(path, shapes, *, epochs):
    """The ImageNet recipe, epoch-based."""
    common = _COMMON.format(
        root=ROOT,
        name='cloformer_xxs_shapes',
        annotations='',
        flip=0.5,
        pack="dict(type='PackInputs')",
    )
    path.write_text(common + _CLASSIFIER.format(shapes=shapes, epochs=epochs))
    return path
