"""The recipes: their arithmetic, and what they rely on in the hosts' configs."""

import copy
import math
import re

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmcloformer.apis.config import read_config
from mmcloformer.models import ARCHS
from tests.conftest import ROOT
from tests.helpers_configs import CONFIGS, build, load, processes

SIZES = ('xxs', 'xs', 's')
REPRODUCE = (ROOT / 'docs/reproduce.md').read_text()


def number(text):
    return int(text.replace(',', ''))


def schedules():
    """Yield the path of each config whose comment gives its schedule, and that comment."""
    for path in CONFIGS:
        comment = re.search(
            r'^# Schedule: .*?(?=^#\n|^# [A-Z]\w+:|^[^#])', path.read_text(), re.M | re.S
        )
        if comment:
            yield pytest.param(path, re.sub(r'\s*\n# ', ' ', comment[0]), id=path.stem)


@pytest.mark.parametrize(('path', 'comment'), schedules())
def test_the_schedule_adds_up_as_the_comment_says(path, comment):
    """Length, batch size and warm-up of the comment are the config's; the products are right."""
    cfg = Config.fromfile(path)
    batch = processes(path) * cfg.train_dataloader.batch_size
    by_epoch = re.search(r'([\d,]+) epochs x ([\d,]+) [a-z ]+ / ([\d,]+) per batch', comment)
    by_iter = re.search(
        r'([\d,]+) iterations x ([\d,]+) per batch / ([\d,]+) [a-z]+ = ([\d,]+) epochs', comment
    )
    if by_epoch:
        epochs, images, per_batch = map(number, by_epoch.groups())
        length = math.ceil(images / per_batch)
        assert (epochs, per_batch) == (cfg.train_cfg.max_epochs, batch)
        assert f'= {epochs} x {length:,} = {epochs * length:,} iterations' in comment
    elif by_iter:
        iterations, per_batch, images, epochs = map(number, by_iter.groups())
        assert (iterations, per_batch) == (cfg.train_cfg.max_iters, batch)
        assert round(iterations * per_batch / images) == epochs
    else:
        epochs, length, iterations = map(
            number, re.search(r'([\d,]+) epochs x ([\d,]+) iterations = ([\d,]+)', comment).groups()
        )
        assert epochs == cfg.train_cfg.max_epochs
        assert epochs * length == iterations
    warmup = re.search(r'warm-up over the first ([\d,]+)', comment)
    if warmup:
        assert cfg.param_scheduler[0].end == number(warmup[1])
        assert not cfg.param_scheduler[0].by_epoch


def test_every_schedule_is_explained():
    explained = {param.values[0] for param in schedules()}
    own = {path for path in CONFIGS if 'max_' in path.read_text()}
    assert len(explained) >= 10
    assert own <= explained


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_schedule_ends_with_the_training(path):
    cfg = Config.fromfile(path)
    end = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    last = cfg.param_scheduler[-1]
    assert last.end == end
    assert last.get('by_epoch', True) == ('max_epochs' in cfg.train_cfg)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('detector', ['retinanet', 'mask-rcnn'])
def test_coco_1x_is_the_hosts(detector, size):
    cfg = load(f'{detector}_cloformer_{size}_coco')
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.by_epoch, warmup.end) == ('LinearLR', False, 500)
    assert (steps.type, steps.milestones, steps.gamma) == ('MultiStepLR', [8, 11], 0.1)
    assert cfg.train_dataloader.dataset.data_root == 'data/coco/'
    resize = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}['Resize']
    assert resize.scale == (1333, 800)
    assert resize.keep_ratio
    assert cfg.model.neck.num_outs == 5
    if detector == 'retinanet':
        assert cfg.model.neck.add_extra_convs == 'on_input'


@pytest.mark.parametrize('size', ['xs', 's'])
def test_coco_3x_differs_from_1x_in_length_augmentation_and_decay(size):
    cfg = load(f'mask-rcnn_cloformer_{size}_ms-3x_coco')
    short = load(f'mask-rcnn_cloformer_{size}_coco')
    assert cfg.train_cfg.max_epochs == 3 * short.train_cfg.max_epochs
    assert cfg.model == short.model
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (1e-4, 0.05)
    assert cfg.optim_wrapper.paramwise_cfg == short.optim_wrapper.paramwise_cfg
    # The augmentation is that of mmdet's Swin configs, whose sizes are written the other way round.
    host = read_config('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py')
    assert augmentation(cfg) == augmentation(host)


def augmentation(cfg):
    steps = copy.deepcopy(cfg.train_dataloader.dataset.pipeline[2:])
    for policy in steps[1]['transforms']:
        for step in policy:
            step['scales'] = [tuple(sorted(scale)) for scale in step.get('scales', [])]
    return steps


def test_later_settings_of_the_same_authors_take_one_option():
    """The line that docs/reproduce.md gives for RALA's Mask R-CNN."""
    (line,) = re.findall(r'--cfg-options (optim_wrapper\.\S+ optim_wrapper\.\S+)', REPRODUCE)
    options = dict(option.split('=') for option in line.split())
    cfg = load('mask-rcnn_cloformer_xs_coco')
    cfg.merge_from_dict({key: float(value) for key, value in options.items()})
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (1e-4, 0.05)
    assert 0.05 in decay_of(build(cfg), cfg).values()


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
@pytest.mark.parametrize('segmentor', ['semantic-fpn', 'upernet'])
def test_ade20k_is_the_hosts(segmentor, size):
    cfg = load(f'{segmentor}_cloformer_{size}_ade20k')
    dataset = cfg.train_dataloader.dataset
    assert (dataset.type, dataset.data_root) == ('ADE20KDataset', 'data/ade/ADEChallengeData2016')
    crop = {step.type: step for step in dataset.pipeline}['RandomCrop'].crop_size
    assert crop == cfg.model.data_preprocessor.size == (512, 512)
    assert cfg.model.decode_head.norm_cfg.type == 'SyncBN'
    if segmentor == 'semantic-fpn':
        assert cfg.model.neck.num_outs == 4
    else:
        auxiliary = cfg.model.auxiliary_head
        assert (auxiliary.type, auxiliary.in_index) == ('FCNHead', 2)


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


def test_imagenet_optimizer_is_the_hosts():
    cfg = load('cloformer_xs_imagenet')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay) == ('AdamW', 0.05)
    assert (optimizer.eps, optimizer.betas) == (1e-8, (0.9, 0.999))
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)


@pytest.mark.parametrize('batch', [2048, 512])
def test_imagenet_schedule_scales_as_a_whole(batch):
    length = 5  # iterations per epoch
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


def test_imagenet_augmentation_is_the_released_one():
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
    assert (
        'probs' not in cfg.model.train_cfg
    )  # Without probabilities, one of the two is chosen at even odds.
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
