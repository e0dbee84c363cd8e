# retinanet_cloformer_xxs_pairs_deeppcb.py continued on whole scans, with the schedule of
# retinanet_cloformer_xxs_4e_deeppcb.py.
_base_ = 'retinanet_cloformer_xxs_4e_deeppcb.py'

load_from = 'work_dirs/deeppcb-pairs/epoch_8.pth'
pairs = dict(data_root='data/deeppcb-pairs/')
train_dataloader = dict(dataset=pairs)
val_dataloader = dict(dataset=pairs)
test_dataloader = val_dataloader
ap = dict(ann_file='data/deeppcb-pairs/annotations/test.json')
val_evaluator = [dict(_base_.ap, **ap), _base_.val_evaluator[1]]
test_evaluator = val_evaluator
