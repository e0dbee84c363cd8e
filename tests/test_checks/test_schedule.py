import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmcloformer.checks.schedule import epoch_samples, schedule_problems
from tests.conftest import ROOT

WARM_UP = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
BY_EPOCH = dict(type='LinearLR', start_factor=0.001, begin=0, end=2, convert_to_iter_based=True)


def config(*schedulers, **train_cfg):
    init_default_scope('mmdet')
    loader = dict(batch_size=2)
    return Config(
        dict(param_scheduler=list(schedulers), train_cfg=train_cfg, train_dataloader=loader)
    )


@pytest.mark.parametrize(
    ('scheduler', 'train_cfg', 'words'),
    [
        (WARM_UP, dict(max_epochs=12), 'ends after 500 iterations, but the run has 120,'),
        (WARM_UP, dict(max_iters=499), 'ends after 500 iterations, but the run has 499,'),
        (
            dict(type='LinearLR', start_factor=0.1, end=20),
            dict(max_epochs=10),
            'ends after 20 epochs, but the run has 10,',
        ),
        (dict(BY_EPOCH, end=20), dict(max_epochs=10), '200 iterations, but the run has 100,'),
        (dict(type='ConstantLR', end=5), dict(max_epochs=4), 'ends after 5 epochs'),
        (
            dict(type='QuadraticWarmupLR', by_epoch=False, end=300),
            dict(max_epochs=12),
            'ends after 300 iterations',
        ),
        (dict(BY_EPOCH, convert_to_iter_based=False), dict(max_iters=99), 'set by_epoch=False'),
        (dict(type='LinearLR', end=1), dict(max_epochs=9), 'has one step only (epochs 0 to 1)'),
    ],
)
def test_a_warm_up_that_never_ends(scheduler, train_cfg, words):
    problems, (warning,) = schedule_problems(config(scheduler, **train_cfg), samples=20)
    assert not problems
    assert warning.startswith(f'param_scheduler.0 ({scheduler["type"]})')
    assert words in warning


@pytest.mark.parametrize(
    ('scheduler', 'train_cfg'),
    [
        (WARM_UP, dict(max_epochs=50)),
        (BY_EPOCH, dict(max_epochs=12)),
        (dict(type='LinearLR', start_factor=1.0, end_factor=0.1, end=900), dict(max_epochs=9)),
        (dict(type='MultiStepLR', milestones=[8, 11]), dict(max_epochs=5)),
        (dict(type='CosineAnnealingLR', T_max=5, by_epoch=False), dict(max_iters=5)),
        (dict(type='LinearMomentum', start_factor=0.1, end=900), dict(max_epochs=9)),
        (dict(type='Unknown'), dict(max_epochs=9)),
    ],
)
def test_others_pass(scheduler, train_cfg):
    assert schedule_problems(config(scheduler, **train_cfg), samples=20) == ([], [])


def test_a_scheduler_that_would_never_start():
    cosine = dict(type='CosineAnnealingLR', T_max=280, begin=20)
    (problem,), _ = schedule_problems(config(WARM_UP, cosine, max_epochs=10), samples=20)
    assert problem.startswith('param_scheduler.1 (CosineAnnealingLR): a scheduler of')
    assert 'begin=20, end=10' in problem


@pytest.mark.parametrize('images', [2, 16, 1000])
def test_the_template_for_own_data_fits_few_images(images):
    cfg = Config.fromfile(ROOT / 'configs/retinanet_cloformer_xxs_custom.py')
    assert schedule_problems(cfg, images) == ([], [])
    coco = Config.fromfile(ROOT / 'configs/retinanet_cloformer_xs_coco.py')
    assert bool(schedule_problems(coco, images)[1]) == (images < 84)


def test_wrappers_make_an_epoch_longer():
    leaf = dict(type='CocoDataset')
    concat = dict(type='ConcatDataset', datasets=[leaf, leaf])
    assert epoch_samples(leaf, 8) == epoch_samples(concat, 8) == 8
    assert epoch_samples(dict(type='RepeatDataset', times=3, dataset=concat), 8) == 24
    assert epoch_samples(dict(type='ClassBalancedDataset', dataset=leaf), 8) is None
    assert schedule_problems(config(WARM_UP, max_epochs=1), None) == ([], [])
