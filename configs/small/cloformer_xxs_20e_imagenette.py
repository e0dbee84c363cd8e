# cloformer_xxs_imagenette.py in the 20-epoch budget of the leaderboard, from random weights.
#
# Schedule: 20 epochs x 9,469 images / 32 per batch = 20 x 296 = 5,920 iterations. The first 14
# epochs train on 96 px, the last six on 128 px (progressive resizing: 96 px take 0.56 of the time).
_base_ = 'cloformer_xxs_imagenette.py'

load, _, *rest = _base_.train_pipeline
train_pipeline = [load, dict(_base_.crop, scale=96), *rest]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=20, val_interval=5)
switch = dict(action_epoch=15, train_pipeline=_base_.train_pipeline)
custom_hooks = [*_base_.custom_hooks, dict(type='SwitchRecipeHook', schedule=[switch])]
auto_scale_lr = dict(base_batch_size=32)
