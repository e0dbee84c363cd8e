import pytest
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.registry import init_default_scope
from mmengine.runner import EpochBasedTrainLoop

from mmcloformer.checks.schedule import loop_problems, schedule_problems
from mmcloformer.config import ConfigView
from tests.conftest import ROOT
from tests.spelling import SPELLINGS, spell

WARM_UP = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
BY_EPOCH = dict(type='LinearLR', start_factor=0.001, begin=0, end=2, convert_to_iter_based=True)
COSINE = dict(type='CosineAnnealingLR', T_max=280, begin=20)
LEAF = dict(type='CocoDataset')


def problems(*schedulers, samples=20, dataset=LEAF, **train_cfg):
    init_default_scope('mmdet')
    loader = dict(batch_size=2, dataset=dataset)
    cfg = Config(
        dict(
            default_scope='mmdet',
            param_scheduler=list(schedulers),
            train_cfg=train_cfg,
            train_dataloader=loader,
        )
    )
    return list(schedule_problems(ConfigView(cfg), samples))


@pytest.mark.parametrize(
    ('scheduler', 'train_cfg', 'words'),
    [
        (WARM_UP, dict(max_epochs=12), 'ends after 500 iterations, but the run has 120,'),
        (WARM_UP, dict(max_iters=499), 'ends after 500 iterations, but the run has 499,'),
        (dict(type='LinearLR', end=20), dict(max_epochs=10), '20 epochs, but the run has 10,'),
        (dict(BY_EPOCH, end=20), dict(max_epochs=10), '200 iterations, but the run has 100,'),
        (dict(type='ConstantLR', end=5), dict(max_epochs=4), 'ends after 5 epochs'),
        (
            dict(type='QuadraticWarmupLR', by_epoch=False, end=300),
            dict(max_epochs=12),
            'ends after 300 iterations',
        ),
        (dict(BY_EPOCH, convert_to_iter_based=False), dict(max_iters=99), 'the run has 1,'),
        (dict(type='LinearLR', end=1), dict(max_epochs=9), 'has one step only (epochs 0 to 1)'),
    ],
)
def test_a_warm_up_that_never_ends(scheduler, train_cfg, words):
    (found,) = problems(scheduler, **train_cfg)
    assert (found.field, found.severity) == ('param_scheduler.0', 'warning')
    assert words in found.found


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
    assert problems(scheduler, **train_cfg) == []


def test_a_scheduler_that_would_never_start():
    found = problems(WARM_UP, COSINE, max_epochs=10)
    assert {(each.field, each.severity) for each in found} == {
        ('param_scheduler.0', 'warning'),
        ('param_scheduler.1', 'error'),
    }


@pytest.mark.parametrize(
    'skipped', [dict(type='Unknown'), dict(type='PolyLR', power='x', begin=3, end=2), COSINE]
)
def test_a_scheduler_keeps_its_index_after_one_that_cannot_be_built(skipped):
    fields = [each.field for each in problems(skipped, WARM_UP, max_epochs=10)]
    assert fields[-1] == 'param_scheduler.1'


@pytest.mark.parametrize('images', [2, 16, 1000])
def test_the_template_for_own_data_fits_few_images(images):
    cfg = Config.fromfile(ROOT / 'configs/retinanet_cloformer_xxs_custom.py')
    assert [*schedule_problems(ConfigView(cfg), images)] == []
    coco = Config.fromfile(ROOT / 'configs/retinanet_cloformer_xs_coco.py')
    assert bool([*schedule_problems(ConfigView(coco), images)]) == (images < 84)


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_wrappers_make_an_epoch_longer(spelling):
    repeat = spell('mmengine', 'DATASETS', 'RepeatDataset', spelling)
    concat = dict(type='ConcatDataset', datasets=[LEAF, LEAF])

    def refused(dataset, end):
        warm_up = dict(WARM_UP, end=end)
        return bool(problems(warm_up, samples=8, max_epochs=1, dataset=dataset))

    for dataset, iterations in [
        (LEAF, 4),
        (concat, 4),
        (dict(type=repeat, times=3, dataset=concat), 12),
    ]:
        assert not refused(dataset, iterations)
        assert refused(dataset, iterations + 1)
    assert not refused(dict(type='ClassBalancedDataset', dataset=LEAF), 100)


def loops(host, sampler, splits=('train',), **train_cfg):
    loader = dict(sampler=sampler)
    loaders = {f'{split}_dataloader': loader for split in splits}
    view = ConfigView(Config(dict(default_scope=host, train_cfg=train_cfg, **loaders)))
    return [each.field for each in loop_problems(view, ('train', 'val', 'test'))]


@pytest.mark.parametrize('spelling', SPELLINGS)
@pytest.mark.parametrize('host', ['mmdet', 'mmseg', 'mmpretrain'])
def test_an_epoch_over_an_infinite_sampler_never_ends(host, spelling):
    kind = spell('mmengine', 'DATA_SAMPLERS', 'InfiniteSampler', spelling)
    loop = spell('mmengine', 'LOOPS', 'EpochBasedTrainLoop', spelling)
    never = ['train_dataloader.sampler']
    assert loops(host, dict(type=kind, shuffle=True), type=loop) == never
    assert loops(host, dict(type=kind), by_epoch=True) == never
    short = type('Short', (EpochBasedTrainLoop,), dict(run_epoch=lambda self: None))
    assert loops(host, dict(type=kind), type=short) == []
    assert loops(host, dict(type=type('Own', (InfiniteSampler,), {})), by_epoch=True) == never
    iterations = loops(host, dict(type=kind), ('train', 'val', 'test'), type='IterBasedTrainLoop')
    assert iterations == ['val_dataloader.sampler', 'test_dataloader.sampler']


@pytest.mark.parametrize(
    ('sampler', 'infinite'),
    [
        (dict(type='GroupMultiSourceSampler', batch_size=4, source_ratio=[1, 3]), True),
        (dict(type='DefaultSampler', shuffle=True), False),
        (dict(type='NoSuchSampler'), False),
        (None, False),
    ],
)
def test_other_samplers(sampler, infinite):
    assert bool(loops('mmdet', sampler, by_epoch=True)) == infinite
