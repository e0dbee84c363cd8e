# RetinaNet on COCO, 1x schedule.
# The paper's settings were not published. These are LITv2's and PVT's (docs/reproduce.md).
#
# Schedule: 12 epochs x 117,266 images with boxes / 16 per batch = 12 x 7,330 = 87,960 iterations;
# warm-up over the first 500, learning rate x 0.1 after epochs 8 and 11 (mmdet's schedule_1x).
# Batch: 8 GPUs x 2 images = 16 = auto_scale_lr.base_batch_size (mmdet's schedule_1x).
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmcloformer'], allow_failed_imports=False)

# RetinaNet does not use the stride-4 map, so the backbone does not return it. Four maps with
# start_level=1 would give the same network plus an output norm without a gradient, and
# distributed training stops at parameters without a gradient.
model = dict(
    backbone=dict(_delete_=True, type='CloFormer', arch='xxs', out_indices=(1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256], start_level=0),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4),
)
sync_bn = 'torch'  # As in the released network. On a CPU the tools turn it off.
