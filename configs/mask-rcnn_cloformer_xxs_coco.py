# Mask R-CNN on COCO, 1x schedule.
# The paper's settings were not published. These are LITv2's (docs/reproduce.md).
#
# Schedule: 12 epochs x 117,266 images with boxes / 16 per batch = 12 x 7,330 = 87,960 iterations;
# warm-up over the first 500, learning rate x 0.1 after epochs 8 and 11 (mmdet's schedule_1x).
# Batch: 8 GPUs x 2 images = 16 = auto_scale_lr.base_batch_size (mmdet's schedule_1x).
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
sync_bn = 'torch'  # As in the released network. On a CPU the tools turn it off.
