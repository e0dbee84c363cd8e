"""`tools/test.py --tta` on the demo's models, with random weights."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.hub import get_config
from mmengine.registry import DATASETS, init_default_scope

from mmcloformer.apis.config import build_model, read_config
from mmcloformer.apis.tta import MirrorImage, augment_test
from mmcloformer.config import ConfigView, walk
from mmcloformer.errors import ConfigError
from tests.conftest import ROOT, coco_options
from tests.spelling import SPELLINGS, spell

DEMO = ROOT / 'configs/demo'
NAMES = dict(
    mmdet='retinanet_cloformer_xxs_shapes',
    mmseg='semantic-fpn_cloformer_xxs_shapes',
    mmpretrain='cloformer_xxs_shapes',
)
FOLDERS = dict(mmdet='coco', mmseg='ade20k', mmpretrain='imagenet')
PACKS = ('PackDetInputs', 'PackSegInputs', 'PackInputs')
ROOTS = dict(semantic='ade20k', cloformer='imagenet')


def options(name, shapes):
    kind = name.split('-')[0].split('_')[0]
    if folder := ROOTS.get(kind):
        found = [f'test_dataloader.dataset.data_root={shapes}/{folder}']
        found.append('test_dataloader.dataset.indices=2')
    else:
        found = coco_options(shapes / 'coco')
    if kind == 'retinanet':  # Untrained scores are all below the usual threshold.
        found += ['model.test_cfg.score_thr=0.0', 'model.test_cfg.nms_pre=50']
    return ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False', *found]


@pytest.fixture
def tested(shapes, tool_main, tmp_path):
    """Test a demo config with random weights; returns config, model, predictions and metrics."""

    def run(name, *extra):
        cfg = read_config(DEMO / f'{name}.py')
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'random.pth')
        tool_main(
            'test.py', DEMO / f'{name}.py', tmp_path / 'random.pth', '--work-dir', tmp_path,
            *extra, '--out', tmp_path / 'out.pkl', '--cfg-options', *options(name, shapes),
        )  # fmt: skip
        predictions = pickle.loads((tmp_path / 'out.pkl').read_bytes())
        (metrics,) = tmp_path.glob('2*/*.json')
        return cfg, model, predictions, json.loads(metrics.read_text())

    return run


def scoped(cfg, host):
    """Leave out the default scope, with classes in place of names, as pure-Python configs."""
    view = ConfigView(cfg)
    for node in [*walk(cfg.test_dataloader.dataset, 'x')]:
        if isinstance(node.value, dict) and 'type' in node.value:
            registry = 'DATASETS' if node.field == 'x' else 'TRANSFORMS'
            node.value['type'] = view.resolve(node.value, registry)
    cfg.model.type = view.resolve(cfg.model, 'MODELS')
    cfg.default_scope = None


def test_an_image_of_one_column_can_be_packed():
    flipped = MirrorImage(flip=True)(dict(img=np.zeros((5, 1, 3), np.uint8)))
    assert torch.from_numpy(flipped['img']).shape == (5, 1, 3)


@pytest.mark.parametrize('spelling', [SPELLINGS[0], 'subclass', 'no scope'])
@pytest.mark.parametrize('host', NAMES)
def test_only_the_image_is_flipped(host, spelling, shapes):
    """The ground truth stays that of the file, and the model is told which version is flipped."""
    cfg = read_config(DEMO / f'{NAMES[host]}.py')
    dataset = cfg.test_dataloader.dataset
    dataset.data_root = f'{shapes}/{FOLDERS[host]}/'
    for step in dataset.pipeline:
        if step.type in ('LoadAnnotations', *PACKS):
            kind = spell(host, 'TRANSFORMS', step.type, 'itself')
            if spelling in SPELLINGS:
                step.type = spell(host, 'TRANSFORMS', step.type, spelling)
            elif spelling == 'subclass':
                step.type = type('Own', (kind,), {})
    dataset.pipeline[-1].meta_keys = ('img_path', 'ori_shape', 'img_shape')
    if spelling == 'no scope':
        scoped(cfg, host)
    init_default_scope(host)
    (plain,) = (DATASETS.build(dataset)[0],)
    augment_test(cfg)
    init_default_scope(cfg.default_scope or 'mmengine')
    flipped, same = (
        dict(inputs=image, data_samples=sample)
        for image, sample in zip(*DATASETS.build(dataset)[0].values(), strict=True)
    )
    assert torch.equal(flipped['inputs'], plain['inputs'].flip(-1))
    assert torch.equal(same['inputs'], plain['inputs'])
    assert [each['data_samples'].flip for each in (flipped, same)] == [True, False]
    for version in (flipped, same):
        found, wanted = version['data_samples'], plain['data_samples']
        for key in ('gt_sem_seg', 'gt_instances', 'gt_label'):
            assert (key in found) == (key in wanted)
        if 'gt_sem_seg' in found:
            assert torch.equal(found.gt_sem_seg.data, wanted.gt_sem_seg.data)
        if 'gt_instances' in found:
            assert torch.equal(found.gt_instances.labels, wanted.gt_instances.labels)
            boxes = [each.gt_instances.bboxes for each in (found, wanted)]
            assert torch.equal(*(getattr(each, 'tensor', each) for each in boxes))


@torch.no_grad()
def test_a_classifier_averages_an_image_and_its_mirror_image(tested, tmp_path):
    cfg, model, predictions, metrics = tested(
        'cloformer_xxs_shapes', '--tta', '--show-dir', 'pictures'
    )
    assert 'accuracy/top1' in metrics
    assert len([*tmp_path.rglob('pictures/**/*.*')]) == len(predictions)
    for prediction in predictions[:2]:
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline[:-1])
        results = pipeline(dict(img_path=prediction['img_path']))
        image = torch.from_numpy(results['img']).permute(2, 0, 1)[None]
        inputs = model.data_preprocessor(dict(inputs=torch.cat([image, image.flip(3)])))['inputs']
        expected = model(inputs).softmax(1).mean(0)
        torch.testing.assert_close(prediction['pred_score'], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('host', NAMES)
def test_the_model_keeps_its_preprocessor(host):
    """Many configs set it as a variable, which `--cfg-options model...` leaves as it was."""
    cfg = read_config(DEMO / f'{NAMES[host]}.py')
    settings = ConfigView(cfg).preprocessor().settings
    cfg.model.data_preprocessor = dict(settings, mean=[1.0, 2.0, 3.0])
    cfg.data_preprocessor = dict(settings)
    augment_test(cfg)
    mean = build_model(cfg).module.data_preprocessor.mean
    assert mean.flatten().tolist() == [1.0, 2.0, 3.0]


def test_a_segmentors_label_maps_have_the_size_of_the_images(tested):
    _, _, predictions, metrics = tested('semantic-fpn_cloformer_xxs_shapes', '--tta')
    assert 'mIoU' in metrics
    for prediction in predictions:
        assert prediction['pred_sem_seg']['data'].shape[1:] == prediction['ori_shape']


@pytest.mark.parametrize('name', ['retinanet', 'mask-rcnn', 'semantic-fpn'])
def test_templates_do_not_inherit_the_scales_of_a_benchmark(name):
    cfg = read_config(ROOT / f'configs/{name}_cloformer_xxs_custom.py')
    assert cfg.get('tta_pipeline') is None


@pytest.mark.parametrize(
    'name', ['retinanet_cloformer_xs_coco', 'semantic-fpn_cloformer_xs_ade20k']
)
def test_the_versions_of_the_config_come_first(name):
    cfg = read_config(ROOT / f'configs/{name}.py')
    versions = cfg.tta_pipeline
    augment_test(cfg)
    assert cfg.test_dataloader.dataset.pipeline == versions
    assert len(versions[-1].transforms[0]) >= 3  # scales
    assert cfg.model.module.backbone.type == 'CloFormer'


def test_a_detector_merges_boxes_of_both_sides(tested):
    _, _, predictions, metrics = tested('retinanet_cloformer_xxs_shapes', '--tta')
    assert 'coco/bbox_mAP' in metrics
    for prediction in predictions:
        boxes = prediction['pred_instances']['bboxes']
        height, width = prediction['ori_shape']
        assert 0 < len(boxes) <= 100
        assert boxes.min() >= 0
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()


def test_the_advice_about_masks_names_the_field_of_the_metric():
    cfg = read_config(DEMO / 'mask-rcnn_cloformer_xxs_shapes.py')
    cfg.test_evaluator = dict(metrics=[dict(type='VOCMetric'), cfg.test_evaluator])
    with pytest.raises(ConfigError, match=r'--cfg-options test_evaluator.metrics.1.metric=bbox'):
        augment_test(cfg)


def test_masks_are_refused_with_advice(shapes, tool_error, tmp_path):
    name = 'mask-rcnn_cloformer_xxs_shapes'
    message = tool_error(
        'test.py', DEMO / f'{name}.py', 'any.pth', '--work-dir', tmp_path, '--tta',
        '--cfg-options', *options(name, shapes),
    )  # fmt: skip
    assert '--cfg-options test_evaluator.metric=bbox' in message


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17halfval',
         'model is a ByteTrack'),
        ('reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20', 'model is a BaseReID'),
        ('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco', 'test_evaluator is a CocoPanopticMetric'),
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic',
         'test_evaluator.0 is a CocoPanopticMetric'),
    ],
)  # fmt: skip
def test_only_tests_of_boxes_are_augmented(name, message):
    cfg = get_config(f'mmdet::{name}.py')
    with pytest.raises(ConfigError, match=message):
        augment_test(cfg)
