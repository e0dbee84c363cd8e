"""Predictions for files, by small models of each host."""

import argparse
import copy
import functools
import http.server
import json
import re
import threading

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from PIL import Image
from pycocotools import mask as rle

from mmcloformer.apis.files import Source
from mmcloformer.apis.predict import ImageReader, NotAnImageError, Predictor, predict_source
from mmcloformer.datasets.shapes import CLASSES, METAINFO, SEG_METAINFO
from mmcloformer.errors import CheckpointError, ConfigError, DataError, UserError
from mmcloformer.models.deploy import cpu_has_bfloat16
from tests.test_checks.odd_images import BAD, GOOD
from tests.test_export.tiny_models import NAMES, tiny_config, tiny_model

KINDS = ('mask-rcnn', 'segmentor', 'classifier')
META = {'mask-rcnn': METAINFO, 'segmentor': SEG_METAINFO, 'classifier': dict(classes=CLASSES)}
NOISE = np.random.RandomState(0).randint(0, 256, (60, 90, 6), np.uint8)


def save(cfg, path, meta=None):
    """Write a checkpoint with random weights."""
    state = tiny_model(cfg).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=meta) if meta else {}), path)
    return cfg, str(path)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of a kind of model."""
    folder = tmp_path_factory.mktemp('trained')
    return {
        kind: save(tiny_config(NAMES[kind]), folder / f'{kind}.pth', META[kind]) for kind in KINDS
    }


@pytest.fixture(scope='module')
def predictors(trained):
    return {kind: Predictor(*trained[kind]) for kind in KINDS}


@pytest.fixture(scope='module')
def scene(shapes):
    return next((shapes / 'coco' / 'val2017').iterdir())


@pytest.mark.parametrize('kind', KINDS)
def test_images_are_files_where_those_of_the_test_set_are_not(trained, scene, kind):
    cfg = copy.deepcopy(trained[kind][0])
    load = cfg.test_dataloader.dataset.pipeline[0]
    load.backend_args = dict(backend='lmdb', db_path='images.lmdb')
    assert ImageReader(cfg).load(str(scene))[0]['img'].ndim == 3


def outcomes(predict, path, out):
    """Predict a file, write what comes, and return it by stem."""
    found = {}
    for stem, outcome in predict_source(predict, Source(str(path), out / 'a', out / 'v', True)):
        found[str(stem.relative_to(out))] = outcome
        if not isinstance(outcome, DataError):
            outcome.save(stem)
            assert json.loads(stem.with_name(f'{stem.name}.json').read_text()) == outcome.result
    return found


@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_detector(predictors, scene, tmp_path, mode):
    path = tmp_path / 'image.png'
    Image.open(scene).convert(mode).crop((0, 0, 97, 65)).save(path)
    (prediction,) = outcomes(predictors['mask-rcnn'], path, tmp_path / 'out').values()
    result = prediction.result
    assert result['image'] == str(path)
    assert 0 < len(result['scores']) == len(result['bboxes']) == len(result['masks'])
    assert result['scores'] == sorted(result['scores'], reverse=True)
    assert result['names'] == [CLASSES[label] for label in result['labels']]
    boxes = np.array(result['bboxes'])
    assert (boxes >= 0).all()
    assert (boxes <= [97, 65, 97, 65]).all()
    assert rle.decode(result['masks'][0]).shape == (65, 97) == prediction.picture.shape[:2]


def test_segmentor(predictors, scene, tmp_path):
    (prediction,) = outcomes(predictors['segmentor'], scene, tmp_path).values()
    labels = np.array(Image.open(tmp_path / 'a_labels.png'))
    np.testing.assert_array_equal(labels, prediction.labels)
    assert labels.dtype == np.uint8
    names = SEG_METAINFO['classes']
    shares = {names[i]: (labels == i).mean() for i in np.unique(labels)}
    assert prediction.result['shares'] == pytest.approx(shares)


def test_classifier(predictors, scene):
    result = predictors['classifier'](scene).result
    scores = result['pred_scores']
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert result['pred_class'] == CLASSES[int(np.argmax(scores))]
    assert result['pred_score'] == max(scores)


@pytest.mark.parametrize('kind', KINDS)
def test_bare_weights_take_the_names_of_the_config(trained, predictors, kind, scene, tmp_path):
    cfg, checkpoint = trained[kind]
    torch.save(torch.load(checkpoint)['state_dict'], tmp_path / 'bare.pth')
    if kind == 'classifier':
        cfg = Config(cfg.to_dict())
        cfg.test_dataloader.dataset.metainfo = dict(classes=CLASSES)
    found = Predictor(cfg, str(tmp_path / 'bare.pth'), pictures=False)(scene)
    assert found.result == predictors[kind](scene).result
    assert found.picture is None


def test_scores_and_classes(trained, predictors, scene):
    everything = predictors['mask-rcnn'](scene).result
    least = everything['scores'][3]
    kept = [i for i, label in enumerate(everything['labels'][:4]) if label == 2]
    predict = Predictor(*trained['mask-rcnn'], score_thr=least, classes=['star'])
    found = predict(scene)
    assert len(kept) == len(found.result['labels']) > 0
    for key in ('scores', 'bboxes', 'masks', 'names'):
        assert found.result[key] == [everything[key][i] for i in kept]
    none = Predictor(*trained['mask-rcnn'], score_thr=1.0)(scene)
    assert none.result['scores'] == none.result['masks'] == []
    assert np.abs(none.picture.astype(int) - found.picture).max() > 50


def test_only_some_classes_of_maps_and_images(trained, predictors, scene):
    everything = predictors['segmentor'](scene)
    name, *_ = everything.result['shares']
    found = Predictor(*trained['segmentor'], classes=[name, 'ground'])(scene)
    label = SEG_METAINFO['classes'].index(name)
    expected = np.where(np.isin(everything.labels, [label, 0]), everything.labels, 255)
    np.testing.assert_array_equal(found.labels, expected)
    assert found.result['shares'][name] == pytest.approx(everything.result['shares'][name])
    scores = predictors['classifier'](scene).result['pred_scores']
    found = Predictor(*trained['classifier'], classes=['star', 'square'])(scene).result
    assert found['pred_class'] == ('star' if scores[2] > scores[1] else 'square')


def test_the_picture_shows_what_testing_draws(trained, scene):
    """With the threshold of the config; a higher one draws less."""
    cfg = Config(trained['mask-rcnn'][0].to_dict())
    pictures = []
    for threshold in (0.0, 1.0):
        cfg.default_hooks.visualization.score_thr = threshold
        prediction = Predictor(cfg, trained['mask-rcnn'][1])(scene)
        assert prediction.result['scores']
        pictures.append(prediction.picture.astype(int) - np.array(Image.open(scene).convert('RGB')))
    some, none = (np.abs(each).mean() for each in pictures)
    assert none + 3 < some  # Not zero: matplotlib before 3.11 moves parts of a picture by a pixel.


@pytest.mark.parametrize(
    ('kind', 'options', 'said'),
    [
        ('mask-rcnn', dict(classes=['star', 'cat']), 'cat.*ring, square, star, triangle'),
        ('classifier', dict(classes=['Star']), 'Star.*ring, square, star, triangle'),
        ('segmentor', dict(score_thr=0.5), '--score-thr'),
        ('classifier', dict(score_thr=0.5), '--score-thr'),
    ],
)
def test_options_that_do_not_fit_the_model(trained, kind, options, said):
    with pytest.raises(UserError, match=said):
        Predictor(*trained[kind], **options)


@pytest.mark.parametrize('number', [256, 257])
def test_label_maps_of_many_classes(scene, tmp_path, number):
    cfg = tiny_config(NAMES['segmentor'])
    cfg.model.decode_head.num_classes = number
    names = [f'class {i}' for i in range(number)]
    cfg, path = save(cfg, tmp_path / 'many.pth', dict(classes=names))
    content = torch.load(path)
    content['state_dict']['decode_head.conv_seg.bias'][number - 1] += 100
    torch.save(content, path)
    (prediction,) = outcomes(Predictor(cfg, path), scene, tmp_path).values()
    labels = np.array(Image.open(tmp_path / 'a_labels.png'))
    assert (labels == number - 1).all()
    assert labels.dtype == (np.uint8 if number == 256 else np.uint16)
    assert prediction.result['shares'] == {names[-1]: 1.0}
    # The value of the classes left out is none of a class.
    rest = Predictor(cfg, path, classes=names[:1])(scene).labels
    assert rest.min() == rest.max() >= number


@pytest.mark.parametrize('given', [dict(thr=0.5), dict(topk=2)])
def test_multi_label_heads(scene, tmp_path, given):
    cfg = tiny_config(NAMES['classifier'])
    head = dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=32, **given)
    cfg.model.head = head
    cfg, path = save(cfg, tmp_path / 'multi.pth', META['classifier'])
    result = Predictor(cfg, path)(scene).result
    scores = np.array(result['pred_scores'])
    above = set(np.flatnonzero(scores >= 0.5)) if 'thr' in given else set(scores.argsort()[-2:])
    assert set(result['labels']) == above
    assert result['names'] == [CLASSES[label] for label in result['labels']]
    assert result['scores'] == [scores[label] for label in result['labels']]
    lowest = float(np.sort(scores)[1])
    result = Predictor(cfg, path, score_thr=lowest, classes=CLASSES[:3])(scene).result
    assert result['labels'] == [i for i in range(3) if scores[i] >= lowest]
    assert len(Predictor(cfg, path, score_thr=1.0)(scene).result['labels']) == 0


def bands_config(kind, **loading):
    cfg = tiny_config(NAMES[kind])
    cfg.model.backbone.in_channels = 6
    settings = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    for key in ('mean', 'std', 'bgr_to_rgb', 'to_rgb'):
        settings.pop(key, None)
    cfg.test_dataloader.dataset.pipeline[0].update(loading)
    return cfg


@TRANSFORMS.register_module()
class LoadArrayOfTests(BaseTransform):
    """A user's own loader."""

    def transform(self, results):
        with np.load(results['img_path']) as content:
            image = content['image']
        return results | dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])


@pytest.mark.parametrize('kind', KINDS)
def test_images_are_loaded_by_the_config(kind, tmp_path):
    """What OpenCV alone cannot read."""
    tifffile = pytest.importorskip('tifffile')  # Comes with the maintained fork only.
    loading = dict(imdecode_backend='tifffile', color_type='unchanged')
    cfg, checkpoint = save(bands_config(kind, **loading), tmp_path / 'bands.pth', META[kind])
    predict = Predictor(cfg, checkpoint)
    tifffile.imwrite(tmp_path / 'bands.tif', NOISE)
    (prediction,) = outcomes(predict, tmp_path / 'bands.tif', tmp_path).values()
    assert prediction.picture.ndim == 3
    tifffile.imwrite(tmp_path / 'bands16', NOISE.astype(np.uint16) * 9)  # Without a suffix.
    assert predict(tmp_path / 'bands16').result.keys() == prediction.result.keys()
    np.savez(tmp_path / 'bands.npz', image=NOISE)
    own = bands_config(kind)
    own.test_dataloader.dataset.pipeline[0] = dict(type='LoadArrayOfTests')
    found = Predictor(own, checkpoint)(tmp_path / 'bands.npz').result
    assert found == prediction.result | dict(image=str(tmp_path / 'bands.npz'))
    (tmp_path / 'other.jpg').write_bytes(b'text')
    with pytest.raises(DataError, match='is not an image'):
        predict(tmp_path / 'other.jpg')


@pytest.mark.parametrize('kind', KINDS)
def test_configs_that_the_hosts_take(trained, predictors, scene, kind):
    """A validation set in a wrapper, without a test set, visualizer, or default scope."""
    cfg = Config(trained[kind][0].to_dict())
    cfg.val_dataloader = cfg.test_dataloader
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.val_dataloader.dataset])
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.pop('visualizer')
    if kind == 'mask-rcnn':  # In the others, a name without a scope is none of mmengine's own.
        from mmdet.models import MaskRCNN

        cfg.default_scope = None
        cfg.model.type = MaskRCNN
    found = Predictor(cfg, trained[kind][1])(scene)
    assert found.result == predictors[kind](scene).result
    assert found.picture.any()


def test_configs_without_images_or_host(trained):
    cfg = Config(trained['classifier'][0].to_dict())
    cfg.val_dataloader = cfg.test_dataloader = None
    with pytest.raises(ConfigError, match='test_dataloader'):
        ImageReader(cfg)
    cfg = Config(dict(default_scope='mmpose', model=dict(type='Other')))
    with pytest.raises(ConfigError, match='default_scope'):
        ImageReader(cfg)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('palette', [None, ((1, 2, 3),)])
def test_classes_without_colors(trained, predictors, kind, scene, tmp_path, palette):
    cfg, checkpoint = trained[kind]
    content = torch.load(checkpoint)
    content['meta'] = dict(dataset_meta=META[kind] | dict(palette=palette))
    torch.save(content, tmp_path / 'colors.pth')
    found = Predictor(cfg, str(tmp_path / 'colors.pth'))(scene)
    assert found.result == predictors[kind](scene).result
    assert found.picture.any()


@pytest.mark.parametrize(
    ('kind', 'bias'),
    [
        ('mask-rcnn', 'roi_head.bbox_head.fc_cls.bias'),
        ('segmentor', 'decode_head.conv_seg.bias'),
        ('classifier', 'head.fc.bias'),
    ],
)
def test_a_class_without_a_name(trained, kind, bias, scene, tmp_path):
    """As of a head that was trained with more outputs than the data have classes."""
    cfg, checkpoint = trained[kind]
    content = torch.load(checkpoint)
    content['state_dict'][bias][3] += 100
    content['meta'] = dict(dataset_meta=dict(classes=META[kind]['classes'][:2]))
    torch.save(content, tmp_path / 'few.pth')
    with pytest.raises(DataError, match=r'class 3.* no name.*num_classes=2') as error:
        Predictor(cfg, str(tmp_path / 'few.pth'))(scene)
    assert str(scene) in str(error.value)


def test_checkpoints_of_others(trained, tmp_path):
    cfg = trained['classifier'][0]
    with pytest.raises(CheckpointError, match='not of this config'):
        Predictor(cfg, trained['segmentor'][1])
    torch.save(dict(state_dict=argparse.Namespace()), tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match='refused'):
        Predictor(cfg, str(tmp_path / 'bad.pth'))


@pytest.mark.skipif(not cpu_has_bfloat16(), reason='the CPU has no units for bfloat16')
def test_bfloat16(trained, predictors, scene):
    exact = predictors['classifier'](scene).result['pred_score']
    rounded = Predictor(*trained['classifier'], 'bfloat16')(scene).result['pred_score']
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.05)


def write_video(path, frames, suffix='.avi'):
    made = path.with_name(f'made{suffix}')
    codec = cv2.VideoWriter_fourcc(*('MJPG' if suffix == '.avi' else 'mp4v'))
    writer = cv2.VideoWriter(str(made), codec, 5, (96, 64))
    for frame in frames:
        writer.write(frame)
    writer.release()
    made.rename(path)


@pytest.mark.parametrize('name', ['clip.mp4', 'clip'])
def test_videos(predictors, tmp_path, name):
    frames = [np.full((64, 96, 3), value, np.uint8) for value in (0, 90, 200)]
    write_video(tmp_path / name, frames, '.mp4' if name == 'clip.mp4' else '.avi')
    found = outcomes(predictors['classifier'], tmp_path / name, tmp_path / 'out')
    assert list(found) == [f'v/{number:06d}' for number in range(3)]
    results = [each.result for each in found.values()]
    assert [each['frame'] for each in results] == [0, 1, 2]
    assert {each['image'] for each in results} == {str(tmp_path / name)}
    scores = [each['pred_scores'] for each in results]
    assert scores[0] != scores[1] != scores[2]


def test_damaged_videos(predictors, tmp_path):
    frames = np.random.RandomState(0).randint(0, 256, (9, 64, 96, 3), np.uint8)
    write_video(tmp_path / 'clip.avi', frames)
    content = (tmp_path / 'clip.avi').read_bytes()
    (tmp_path / 'half.avi').write_bytes(content[: len(content) // 2])
    *_, last = outcomes(predictors['classifier'], tmp_path / 'half.avi', tmp_path).values()
    assert isinstance(last, DataError)
    assert 'half.avi' in str(last)
    (tmp_path / 'text.mp4').write_text('no video')
    (only,) = outcomes(predictors['classifier'], tmp_path / 'text.mp4', tmp_path).values()
    assert 'text.mp4' in str(only)


@pytest.mark.parametrize(('name', 'pages'), [('a.tif', 3), ('a.gif', 2), ('b.tif', 1)])
def test_pages_that_are_left_out(predictors, tmp_path, capsys, name, pages):
    images = [Image.fromarray(NOISE[..., i : i + 3]) for i in range(3)]
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:pages])
    predictors['classifier'](tmp_path / name)
    said = capsys.readouterr().err
    assert (f'{tmp_path / name} has {pages} pages' in said) == (pages > 1)


@pytest.fixture
def server(scene, tmp_path):
    """A web server with an image, and the address of its folder."""
    (tmp_path / 'web').mkdir()
    (tmp_path / 'web' / 'photo.png').write_bytes(scene.read_bytes())
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / 'web')
    )
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        yield f'http://127.0.0.1:{web.server_address[1]}'
        web.shutdown()


def test_urls(predictors, server, scene, tmp_path):
    url = f'{server}/photo.png?size=1'
    (prediction,) = outcomes(predictors['classifier'], url, tmp_path).values()
    assert prediction.result == predictors['classifier'](scene).result | dict(image=url)
    for url in (f'{server}/gone.png', 'nowhere://bucket/a.png'):
        (error,) = outcomes(predictors['classifier'], url, tmp_path).values()
        assert str(error).startswith(f'{url} cannot be opened')


def test_whole_and_bad_images(predictors, tmp_path):
    """Those of the checks, which decide the same."""
    file = tmp_path / 'image.jpg'
    for content in GOOD.values():
        file.write_bytes(content)
        assert predictors['classifier'](file).result
    for content, said in BAD.values():
        file.write_bytes(content)
        with pytest.raises(DataError, match=r'image\.jpg (is|has|cannot be read) ') as error:
            predictors['classifier'](file)
        assert re.search(said, str(error.value))


@pytest.mark.parametrize('name', ['notes.txt', 'notes', 'a.json', 'gone.png', 'a.jpg', 'a.webp'])
def test_what_is_no_image_by_name_and_content(predictors, tmp_path, name):
    if name != 'gone.png':
        (tmp_path / name).write_text('no image')
    with pytest.raises(DataError) as error:
        predictors['classifier'](tmp_path / name)
    assert isinstance(error.value, NotAnImageError) == name.startswith(('notes', 'a.json'))


@pytest.mark.parametrize('error', [IndexError('out of range'), MemoryError()])
def test_errors_of_the_host(predictors, error, tmp_path, monkeypatch):
    """They name the size, which may be the cause."""
    file = tmp_path / 'image.png'
    Image.new('RGB', (300, 1)).save(file)

    def fail(batch):
        raise error

    monkeypatch.setattr(predictors['classifier'].model, 'test_step', fail)
    with pytest.raises(DataError, match=f'image.png .300x1 pixels. .*{type(error).__name__}'):
        predictors['classifier'](file)
