"""The numbers of the recipes: the released ones for ImageNet, the inferred ones downstream."""

import math

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmcloformer.models import ARCHS
from tests.conftest import ROOT
from tests.test_configs.test_configs import build

SIZES = ('xxs', 'xs', 's')


def load(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def check_optimizer(cfg, lr, weight_decay):
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=lr, weight_decay=weight_decay)


def check_batch(cfg):
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 8 * 2


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(('detector', 'lr'), [('retinanet', 1e-4), ('mask-rcnn', 2e-4)])
def test_coco_1x(detector, lr, size):
    cfg = load(f'{detector}_cloformer_{size}_coco')
    check_optimizer(cfg, lr, 1e-4)
    check_batch(cfg)
    check_detection_schedule(cfg, epochs=12, milestones=[8, 11])
    assert cfg.train_dataloader.dataset.data_root == 'data/coco/'
    resize = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}['Resize']
    assert resize.scale == (1333, 800)
    assert resize.keep_ratio


@pytest.mark.parametrize('size', ['xs', 's'])
def test_coco_3x_multi_scale(size):
    cfg = load(f'mask-rcnn_cloformer_{size}_ms-3x_coco')
    check_optimizer(cfg, 2e-4, 1e-4)
    check_batch(cfg)
    check_detection_schedule(cfg, epochs=36, milestones=[27, 33])
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [step.type for step in pipeline] == [
        step.type.replace('Resize', 'RandomChoiceResize')
        for step in load(f'mask-rcnn_cloformer_{size}_coco').train_dataloader.dataset.pipeline
    ]
    assert {longest for longest, _ in pipeline[2].scales} == {1333}
    assert (pipeline[2].scales[0][1], pipeline[2].scales[-1][1]) == (480, 800)


def check_detection_schedule(cfg, epochs, milestones):
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.by_epoch, warmup.end) == ('LinearLR', False, 500)
    assert (steps.type, steps.milestones, steps.gamma) == ('MultiStepLR', milestones, 0.1)
    assert steps.by_epoch
    assert cfg.train_cfg.max_epochs == steps.end == epochs


@pytest.mark.parametrize('size', SIZES)
def test_the_detectors_levels(size):
    retinanet = load(f'retinanet_cloformer_{size}_coco').model
    assert retinanet.backbone.out_indices == (1, 2, 3)
    assert (retinanet.neck.num_outs, retinanet.neck.add_extra_convs) == (5, 'on_input')
    mask_rcnn = load(f'mask-rcnn_cloformer_{size}_coco').model
    assert mask_rcnn.backbone.out_indices == (0, 1, 2, 3)
    assert mask_rcnn.neck.num_outs == 5


@pytest.mark.parametrize('name', ['mask-rcnn_cloformer_xxs_coco', 'upernet_cloformer_xxs_ade20k'])
def test_norms_alone_have_no_decay(name):
    cfg = load(name)
    model = build(cfg)
    norms = {
        f'{prefix}.{kind}'
        for prefix, module in model.named_modules()
        if 'Norm' in type(module).__name__
        for kind in ('weight', 'bias')
    }
    assert len(norms) > 50
    decay = cfg.optim_wrapper.optimizer.weight_decay
    for parameter, group in decay_of(model, cfg).items():
        assert group == (0 if parameter in norms else decay), parameter


@pytest.mark.parametrize('size', SIZES)
def test_semantic_fpn_80k(size):
    cfg = load(f'semantic-fpn_cloformer_{size}_ade20k')
    check_optimizer(cfg, 1e-4, 1e-4)
    check_segmentation(cfg, iterations=80_000)
    assert cfg.model.neck.num_outs == 4
    (poly,) = cfg.param_scheduler
    assert (poly.type, poly.power, poly.begin, poly.eta_min) == ('PolyLR', 0.9, 0, 0)


@pytest.mark.parametrize('size', SIZES)
def test_upernet_160k(size):
    cfg = load(f'upernet_cloformer_{size}_ade20k')
    check_optimizer(cfg, 6e-5, 0.01)
    check_segmentation(cfg, iterations=160_000)
    assert (cfg.model.auxiliary_head.type, cfg.model.auxiliary_head.in_index) == ('FCNHead', 2)
    assert cfg.model.auxiliary_head.num_classes == 150
    warmup, poly = cfg.param_scheduler
    assert (warmup.type, warmup.by_epoch, warmup.end) == ('LinearLR', False, 1500)
    assert (poly.type, poly.power, poly.begin, poly.eta_min) == ('PolyLR', 1.0, 1500, 0)


def check_segmentation(cfg, iterations):
    check_batch(cfg)
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == iterations
    assert not cfg.param_scheduler[-1].by_epoch
    assert cfg.model.data_preprocessor.size == (512, 512)
    dataset = cfg.train_dataloader.dataset
    assert (dataset.type, dataset.data_root) == (
        'ADE20KDataset',
        'data/ade/ADEChallengeData2016',
    )
    assert {step.type: step for step in dataset.pipeline}['RandomCrop'].crop_size == (512, 512)
    assert cfg.model.decode_head.num_classes == 150
    assert cfg.model.decode_head.norm_cfg.type == 'SyncBN'


@pytest.mark.parametrize('size', SIZES)
def test_imagenet_decays_nothing_of_one_dimension(size):
    cfg = load(f'cloformer_{size}_imagenet')
    model = build(cfg)
    decay = decay_of(model, cfg)
    for name, parameter in model.named_parameters():
        flat = parameter.ndim == 1 or name.endswith('.bias')
        assert decay[name] == (0 if flat else 0.05), name


def decay_of(model, cfg):
    """Weight decay of every parameter in the optimizer that the Runner would build."""
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    of = {id(p): group['weight_decay'] for group in optimizer.param_groups for p in group['params']}
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_imagenet_optimizer():
    cfg = load('cloformer_xs_imagenet')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 2e-3, 0.05)
    assert (optimizer.eps, optimizer.betas) == (1e-8, (0.9, 0.999))
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.train_dataloader.batch_size == 256
    assert cfg.auto_scale_lr.base_batch_size == 8 * 256


@pytest.mark.parametrize('batch', [2048, 512])
def test_imagenet_schedule_scales_as_a_whole(batch):
    length = 5  # iterations an epoch
    cfg = load('cloformer_xxs_imagenet')
    cfg.optim_wrapper.optimizer.lr *= batch / cfg.auto_scale_lr.base_batch_size
    optim_wrapper = build_optim_wrapper(build(cfg).head, cfg.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(
            scheduler, default_args=dict(optimizer=optim_wrapper, epoch_length=length)
        )
        for scheduler in cfg.param_scheduler
    ]
    rates = []
    for _ in range(300 * length):
        rates.append(optim_wrapper.get_lr()['lr'][0])
        for scheduler in schedulers:
            scheduler.step()
    scale = batch / 512
    assert rates[0] == pytest.approx(5e-7 * scale)
    assert rates[10 * length] == pytest.approx(2.5e-4 * scale, rel=0.02)
    assert max(rates) == rates[20 * length] == pytest.approx(5e-4 * scale)
    half = 5e-6 + (5e-4 - 5e-6) * (1 + math.cos(math.pi / 2)) / 2
    assert rates[160 * length] == pytest.approx(half * scale, rel=0.01)
    assert rates[-1] == pytest.approx(5e-6 * scale, rel=0.01)


def test_imagenet_augmentation():
    cfg = load('cloformer_xs_imagenet')
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert list(steps) == [
        'LoadImageFromFile',
        'RandomResizedCrop',
        'RandomFlip',
        'RandAugment',
        'RandomErasing',
        'PackInputs',
    ]
    assert (steps['RandomResizedCrop'].scale, steps['RandomResizedCrop'].interpolation) == (
        224,
        'bicubic',
    )
    rand = steps['RandAugment']
    assert (rand.policies, rand.magnitude_level, rand.magnitude_std, rand.num_policies) == (
        'timm_increasing',
        9,
        0.5,
        2,
    )
    erasing = steps['RandomErasing']
    assert (erasing.erase_prob, erasing.mode) == (0.25, 'rand')
    # timm's "pixel" mode is unit noise on normalised pixels.
    assert erasing.fill_color == cfg.data_preprocessor.mean[::-1]
    assert erasing.fill_std == cfg.data_preprocessor.std[::-1]
    assert cfg.model.train_cfg.augments == [
        dict(type='Mixup', alpha=0.8),
        dict(type='CutMix', alpha=1.0),
    ]
    assert 'probs' not in cfg.model.train_cfg  # even odds, always one of the two
    assert cfg.model.head.loss == dict(
        type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'
    )
    test = {step.type: step for step in cfg.test_dataloader.dataset.pipeline}
    assert test['CenterCrop'].crop_size / test['ResizeEdge'].scale == 0.875
    assert test['ResizeEdge'].interpolation == 'bicubic'


@pytest.mark.parametrize('size', SIZES)
def test_imagenet_model(size):
    cfg = load(f'cloformer_{size}_imagenet')
    assert cfg.model.backbone.out_indices == (3,)
    assert 'drop_path_rate' not in cfg.model.backbone
    model = build(cfg)
    assert model.backbone.stages[3][1].drop_path.drop_prob == pytest.approx(
        ARCHS[size].drop_path_rate
    )
    released = dict(xxs=4_166_728, xs=7_172_216, s=12_345_576)
    assert sum(p.numel() for p in model.parameters()) == released[size]
