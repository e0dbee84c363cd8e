"""The configs for small public sets train and evaluate on them, beside the real data."""

import pytest

from mmcloformer.analysis.curves import main_metric, read_curves
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
CONFIGS = {path.stem: path for path in sorted((ROOT / 'configs/small').glob('*.py'))}
ITERATIONS = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
EPOCH = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
# Untrained scores are all below the usual threshold, and without a box there is no AP.
RETINANET = [*EPOCH, 'model.test_cfg.score_thr=0']
SHORT = dict(bccd=RETINANET, deeppcb=RETINANET, dsb2018=EPOCH, camvid=ITERATIONS)


@pytest.mark.parametrize('name', ['cloformer_xxs_imagenette', 'cloformer_xxs_20e_imagenette'])
def test_train_and_evaluate_a_classifier(name, shapes, tool_main, tmp_path, monkeypatch):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/imagenette').symlink_to(shapes / 'imagenet')
    monkeypatch.chdir(tmp_path)
    options = [f'{part}.num_classes=4' for part in ('data_preprocessor', 'model.head')]
    options += [f'{part}.topk=1' for part in ('val_evaluator', 'test_evaluator')]
    options += ['train_dataloader.batch_size=4', 'param_scheduler=[]', *EPOCH]
    tool_main('train.py', CONFIGS[name], '--work-dir', 'run', '--cfg-options', *options)
    assert main_metric(read_curves('run')[1]) == 'accuracy/top1'


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[] if 'cloformer' in name else pytest.mark.nightly)
        for name in CONFIGS
        if not name.endswith('imagenette')
    ],
)
def test_train_and_evaluate(name, real_data, tool_main, tmp_path, monkeypatch):
    (tmp_path / 'data').mkdir()
    for folder in (*SHORT, 'deeppcb-pairs'):
        (tmp_path / 'data' / folder).symlink_to(real_data / folder.removesuffix('-pairs'))
    monkeypatch.chdir(tmp_path)
    title = name.rpartition('_')[2]
    sets = ['.datasets.0', '.datasets.1'] if title in ('bccd', 'camvid') else ['']
    options = [f'train_dataloader.dataset{each}.indices={8 // len(sets)}' for each in sets]
    options += ['train_dataloader.batch_size=4', 'val_dataloader.dataset.indices=2']
    options += ['default_hooks.logger.interval=1', 'load_from=None', *SHORT[title]]
    tool_main('train.py', CONFIGS[name], '--work-dir', 'run', '--cfg-options', *options)
    training, metrics = read_curves('run')
    assert len(training['loss']) == 2
    assert main_metric(metrics) in ('coco/segm_mAP', 'coco/bbox_mAP', 'mIoU')
    assert ('pascal_voc/AP33' in metrics) == (title == 'deeppcb')
