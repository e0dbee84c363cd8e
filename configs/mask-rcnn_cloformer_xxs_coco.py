# Mask R-CNN, 1x. Inferred (the paper's settings were not published): the recipe of the same
# authors' later code, of LITv2 and of PVT.
#
# Schedule: 12 epochs x 117,266 images with boxes / 16 a batch = 12 x 7,330 = 87,960 iterations;
# warm-up over the first 500, learning rate x 0.1 after epochs 8 and 11 (host's schedule_1x).
# Batch: 8 GPUs x 2 images = 16 = auto_scale_lr.base_batch_size (host's schedule_1x).
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmcloformer'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='CloFormer', arch='xxs', out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
sync_bn = 'torch'  # As the released network; across GPUs only.
