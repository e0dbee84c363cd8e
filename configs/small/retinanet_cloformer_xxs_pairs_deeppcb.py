# retinanet_cloformer_xxs_deeppcb.py on scans with their templates: scan, template and scan again
# are the three channels of an image, which gives the detector what the published one has. Same
# schedule.
_base_ = 'retinanet_cloformer_xxs_deeppcb.py'

pairs = dict(data_root='data/deeppcb-pairs/')
train_dataloader = dict(dataset=pairs)
val_dataloader = dict(dataset=pairs)
test_dataloader = val_dataloader
ap = dict(ann_file='data/deeppcb-pairs/annotations/test.json')
val_evaluator = [dict(_base_.ap, **ap), _base_.val_evaluator[1]]
test_evaluator = val_evaluator
