"""`tools/test.py --tta` on the demo's models, with random weights."""

import json
import pickle

import pytest
import torch
from mmengine.dataset import Compose

from mmcloformer.apis.config import build_model, read_config
from mmcloformer.apis.tta import augment_test
from tests.conftest import ROOT, coco_options

DEMO = ROOT / 'configs/demo'
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


@torch.no_grad()
def test_a_classifier_averages_an_image_and_its_mirror_image(tested, tmp_path):
    cfg, model, predictions, metrics = tested(
        'cloformer_xxs_shapes', '--tta', '--show-dir', 'pictures'
    )
    assert 'accuracy/top1' in metrics
    assert len([*tmp_path.rglob('pictures/**/*.png')]) == len(predictions)
    for prediction in predictions[:2]:
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline[:-1])
        results = pipeline(dict(img_path=prediction['img_path']))
        image = torch.from_numpy(results['img']).permute(2, 0, 1)[None]
        inputs = model.data_preprocessor(dict(inputs=torch.cat([image, image.flip(3)])))['inputs']
        expected = model(inputs).softmax(1).mean(0)
        torch.testing.assert_close(prediction['pred_score'], expected, rtol=1e-4, atol=1e-6)


def test_a_segmentors_label_maps_have_the_size_of_the_images(tested):
    _, _, predictions, metrics = tested('semantic-fpn_cloformer_xxs_shapes', '--tta')
    assert 'mIoU' in metrics
    for prediction in predictions:
        assert prediction['pred_sem_seg']['data'].shape[1:] == prediction['ori_shape']


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


def test_masks_are_refused_with_advice(shapes, tool_error, tmp_path):
    name = 'mask-rcnn_cloformer_xxs_shapes'
    message = tool_error(
        'test.py', DEMO / f'{name}.py', 'any.pth', '--work-dir', tmp_path, '--tta',
        '--cfg-options', *options(name, shapes),
    )  # fmt: skip
    assert '--cfg-options test_evaluator.metric=bbox' in message
