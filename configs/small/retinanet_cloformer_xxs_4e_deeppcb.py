# retinanet_cloformer_xxs_deeppcb.py continued on whole scans instead of crops, which is what the
# test shows.
#
# Schedule: 4 epochs x 1,000 scans of 640x640 / 2 per batch = 4 x 500 = 2,000 iterations; warm-up
# over the first 50, then cosine decay to zero.
_base_ = 'retinanet_cloformer_xxs_deeppcb.py'

load_from = 'work_dirs/deeppcb/epoch_8.pth'
steps = _base_.train_pipeline
train_pipeline = [*steps[:2], *steps[4:]]  # Without the crop and the filter of its slivers.
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=4, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=4, begin=0, end=4, convert_to_iter_based=True),
]
