"""Parameters and multiply-adds, against the paper's, the host's and a formula."""

import json
from dataclasses import asdict

import pytest
import torch
from mmengine.config import Config

from mmcloformer.analysis.complexity import PUBLISHED_GMACS, measure
from mmcloformer.errors import UserError
from mmcloformer.models import ARCHS
from tests.conftest import ROOT

SIZES = ('xxs', 'xs', 's')
# tools/analysis_tools/complexity.py CONFIG... --json > benchmarks/complexity.json
COMMITTED = json.loads((ROOT / 'benchmarks' / 'complexity.json').read_text())


def ours(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def host(name, extra=''):
    return Config.fromstring(f'_base_ = {name!r}\n{extra}', '.py')


PARAMS = dict(xxs=4_166_728, xs=7_172_216, s=12_345_576)
GMACS = {
    (224, 224): dict(xxs=0.660, xs=1.219, s=2.169),
    (512, 512): dict(xxs=3.870, xs=7.002, s=12.124),
    (800, 1280): dict(xxs=21.02, xs=36.26, s=58.45),
}


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'shape', [(224, 224), *(pytest.param(s, marks=pytest.mark.nightly) for s in [*GMACS][1:])]
)
def test_classifiers_and_their_backbones(size, shape):
    result = measure(ours(f'cloformer_{size}_imagenet'), shape)
    assert result.parts['whole'].params == PARAMS[size]
    assert result.parts['backbone'].macs / 1e9 == pytest.approx(GMACS[shape][size], rel=0.01)


@pytest.mark.parametrize(
    'size', ['xxs', *(pytest.param(s, marks=pytest.mark.nightly) for s in SIZES[1:])]
)
def test_semantic_fpn_is_the_published(size):
    name = f'semantic-fpn_cloformer_{size}_ade20k'
    result = measure(ours(name))
    assert result.shape == (512, 512)
    assert result.parts['whole'].macs / 1e9 == pytest.approx(PUBLISHED_GMACS[name], rel=0.04)


def test_both_attention_products_count():
    arch = ARCHS['xxs-global']
    cfg = ours('cloformer_xxs_imagenet')
    cfg.model.backbone.arch = 'xxs-global'
    height, width = 96, 160
    expected = sum(
        depth * 2 * dims * (height * width // stride**2) * (height * width // 32**2)
        for depth, dims, stride in zip(arch.depths, arch.embed_dims, (4, 8, 16, 32))
    )
    assert measure(cfg, (height, width)).operators['attention'] == expected


def test_a_hosts_network_has_its_known_cost():
    result = measure(host('mmpretrain::resnet/resnet50_8xb32_in1k.py'))
    assert result.parts['whole'].params == 25_557_032  # Both as torchvision documents them.
    assert result.parts['whole'].macs / 1e9 == pytest.approx(4.09, abs=0.005)
    assert result.operators['attention'] == 0


UPERNET = 'mmseg::upernet/upernet_r18_4xb4-80k_ade20k-512x512.py'


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
        'mmdet::detr/detr_r18_8xb2-500e_coco.py',
        'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
        UPERNET,
    ],
)
def test_parts_make_up_the_whole(name):
    result = measure(host(name), (128, 96))
    whole = result.parts['whole']
    rest = [part for name, part in result.parts.items() if name != 'whole']
    assert whole.params == sum(part.params for part in rest)
    assert whole.macs == sum(part.macs for part in rest) == sum(result.operators.values())
    assert result.parts['backbone'].macs > 0
    assert result.parts['head'].macs > 0


def test_a_segmentor_sees_every_pixel_once():
    slide = "model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32)))"
    assert measure(host(UPERNET, slide), (128, 96)) == measure(host(UPERNET), (128, 96))


def test_a_segmentor_keeps_the_options_of_its_head():
    cfg = host('mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py')
    costs = []
    for points in (64, 128):
        cfg.model.test_cfg.subdivision_num_points = points
        costs.append(measure(cfg, (64, 64)).operators['convolution'])
    assert costs[0] < costs[1]


@pytest.mark.parametrize('options', [{}, dict(max_num=50)])
def test_two_stages_pool_a_fixed_number_of_regions(options):
    cfg = ours('mask-rcnn_cloformer_xxs_coco')
    cfg.model.test_cfg.rpn.nms.update(options)
    costs = []
    for seed in range(2):
        torch.manual_seed(seed)
        result = measure(cfg, (128, 160))
        assert result.regions == {
            'roi_head.bbox_roi_extractor': 1000,
            'roi_head.mask_roi_extractor': 100,
        }
        costs.append(result.parts)
    assert costs[0] == costs[1]
    assert cfg.model.test_cfg.rpn.nms.iou_threshold == 0.7
    boxes = 1000 * (256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 80))
    assert result.operators['matrix product'] == boxes


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[] if 'imagenet' in name else pytest.mark.nightly)
        for name in sorted(COMMITTED)
    ],
)
def test_the_committed_figures_are_these(name):
    result = json.loads(json.dumps(asdict(measure(ours(name)))))
    assert COMMITTED[name] == {**result, 'published_gmacs': PUBLISHED_GMACS.get(name)}


def test_the_tables_experiments_are_committed():
    for model in ('retinanet_{}_coco', 'mask-rcnn_{}_coco', 'semantic-fpn_{}_ade20k'):
        assert {model.format(f'cloformer_{size}') for size in SIZES} <= COMMITTED.keys()


def test_other_configs_are_refused():
    with pytest.raises(UserError, match='mmdet, mmseg, mmpretrain'):
        measure(Config(dict(model=dict(type='A'), default_scope='mmpose')))


def test_the_tool_prints_ours_beside_the_published(tool_main):
    output = tool_main('complexity.py', ROOT / 'configs' / 'semantic-fpn_cloformer_xxs_ade20k.py')
    for part in ('backbone', 'neck', 'head', 'whole'):
        assert f'\n{part} ' in output
    assert '3.870' in output
    assert 'published                     25.2' in output
    assert 'both products of attention' in output


def test_the_tool_prints_json(tool_main, tool_error):
    output = tool_main(
        'complexity.py', ROOT / 'configs/cloformer_xxs_imagenet.py',
        'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', '--shape', 64, 96, '--json',
    )  # fmt: skip
    results, _ = json.JSONDecoder().raw_decode(output)  # Standard output holds nothing else.
    assert list(results) == ['cloformer_xxs_imagenet', 'retinanet_r18_fpn_1x_coco']
    assert results['cloformer_xxs_imagenet']['shape'] == [64, 96]
    assert results['cloformer_xxs_imagenet']['parts']['whole']['params'] == 4_166_728
    assert results['cloformer_xxs_imagenet']['published_gmacs'] is None
    assert 'error: config nothing.py' in tool_error('complexity.py', 'nothing.py')


def test_a_changed_model_has_no_published_figure(tool_main):
    changes = ('--cfg-options', 'model.backbone.arch=xxs', 'model.head.in_channels=256')
    output = tool_main('complexity.py', ROOT / 'configs/cloformer_xs_imagenet.py', *changes)
    assert 'whole' in output
    assert 'published' not in output
