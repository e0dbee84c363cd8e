"""Predictions for files, by each host's model after two iterations."""

import argparse
import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as rle

from mmcloformer.apis.predict import (
    build_predictor,
    image_problem,
    make_folders,
    plan_files,
    predict_file,
)
from mmcloformer.apis.runner import build_runner, load_config
from mmcloformer.checkpoint import read_checkpoint
from mmcloformer.datasets.shapes import CLASSES
from mmcloformer.errors import CheckpointError, DataError, UserError
from mmcloformer.models.bfloat16 import cpu_has_bfloat16
from tests.conftest import ROOT, coco_options

DETECTOR = 'mask-rcnn_cloformer_xxs_shapes'
SEGMENTOR = 'semantic-fpn_cloformer_xxs_shapes'
CLASSIFIER = 'cloformer_xxs_shapes'
FOLDERS = {DETECTOR: 'coco', SEGMENTOR: 'ade20k', CLASSIFIER: 'imagenet'}


def train(name, shapes, work_dir):
    """Two iterations; returns the config and the checkpoint."""
    options = {f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')}
    options |= {f'{split}_dataloader.persistent_workers': False for split in ('train', 'val')}
    options |= {
        f'{split}_dataloader.dataset.data_root': f'{shapes}/{FOLDERS[name]}/'
        for split in ('train', 'val', 'test')
    }
    if name == DETECTOR:
        options |= dict(option.split('=', 1) for option in coco_options(shapes / 'coco'))
        # Untrained scores are all below the usual thresholds.
        options['model.test_cfg.rcnn.score_thr'] = 0.0
        options['default_hooks.visualization.score_thr'] = 0.0
    length = 'max_iters' if name == SEGMENTOR else 'max_epochs'
    end = 2 if name == SEGMENTOR else 1
    options |= {f'train_cfg.{length}': end, 'default_hooks.checkpoint.interval': end}
    options['train_cfg.val_interval'] = 9
    options['train_dataloader.dataset.indices'] = 8
    args = argparse.Namespace(
        config=ROOT / 'configs' / 'demo' / f'{name}.py',
        work_dir=str(work_dir),
        launcher='none',
        local_rank=0,
        cfg_options=options,
    )
    cfg = load_config(args)
    cfg.train_dataloader.batch_size = 4
    build_runner(cfg).train()
    return cfg, (work_dir / 'last_checkpoint').read_text()


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """Config and checkpoint by the config's name."""
    return {name: train(name, shapes, tmp_path_factory.mktemp(name)) for name in FOLDERS}


@pytest.fixture
def folder(shapes, tmp_path):
    """Images of two sizes and in two formats, one grey, one in a folder below."""
    scene = Image.open(next((shapes / 'coco' / 'val2017').iterdir())).convert('RGB')
    folder = tmp_path / 'images'
    (folder / 'below').mkdir(parents=True)
    scene.save(folder / 'scene.jpg')
    scene.convert('L').save(folder / 'grey.png')
    scene.crop((0, 0, 97, 65)).save(folder / 'below' / 'scene.PNG')
    (folder / 'notes.txt').write_text('no image')
    return folder


def predict_all(trained, name, folder, out):
    """Size of each image and what was said of it, from the files written."""
    predict = build_predictor(*trained[name])
    for path, stem in plan_files(str(folder), str(out), name == SEGMENTOR).items():
        assert image_problem(path) is None
        predict(path).save(stem)
        result = json.loads(stem.with_suffix('.json').read_text())
        assert result['image'] == str(path)
        picture, image = Image.open(stem.with_suffix('.png')), Image.open(path)
        assert picture.mode == 'RGB'
        if name != CLASSIFIER:
            assert picture.size == image.size
            assert np.abs(np.array(picture, int) - np.array(image.convert('RGB'))).max() > 50
        yield stem, image.size, result


def test_detector(trained, folder, tmp_path):
    results = list(predict_all(trained, DETECTOR, folder, tmp_path))
    assert len(results) == 3
    for _, (width, height), result in results:
        assert 0 < len(result['scores']) == len(result['bboxes']) == len(result['masks'])
        assert result['scores'] == sorted(result['scores'], reverse=True)
        assert result['names'] == [CLASSES[label] for label in result['labels']]
        boxes = np.array(result['bboxes'])
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        assert rle.decode(result['masks'][0]).shape == (height, width)


@pytest.mark.parametrize('name', [DETECTOR, SEGMENTOR])
def test_bare_weights_take_the_names_of_the_classes_from_the_config(
    trained, name, folder, tmp_path
):
    cfg, checkpoint = trained[name]
    bare = tmp_path / 'bare.pth'
    torch.save(read_checkpoint(checkpoint)['state_dict'], bare)
    predict, reference = build_predictor(cfg, str(bare)), build_predictor(cfg, checkpoint)
    image = folder / 'scene.jpg'
    np.random.seed(0)  # mmdet jitters the colours of masks.
    expected = reference(image)
    np.random.seed(0)
    found = predict(image)
    assert found.result == expected.result
    np.testing.assert_array_equal(found.picture, expected.picture)


def drawn_upon(image):
    """An image as mmdet draws it with no objects: the same, but that matplotlib before 3.11 moves
    parts of it by a pixel each time it draws."""
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer

    none = InstanceData(
        bboxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.long),
        scores=torch.zeros(0),
        masks=torch.zeros(0, *image.shape[:2], dtype=torch.bool),
    )
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = {}
    visualizer.add_datasample('', image, DetDataSample(pred_instances=none), draw_gt=False)
    return visualizer.get_image().astype(int)


def test_only_what_is_sure_is_drawn_and_colours_stay(trained, folder):
    """As sure as the config says, as in testing."""
    cfg = copy.deepcopy(trained[DETECTOR][0])
    cfg.default_hooks.visualization.score_thr = 1.0
    prediction = build_predictor(cfg, trained[DETECTOR][1])(folder / 'scene.jpg')
    assert prediction.result['scores']
    image = drawn_upon(np.array(Image.open(folder / 'scene.jpg')))
    assert np.abs(prediction.picture - image).mean() < 3  # Two decoders of JPEG.


def test_segmentor(trained, folder, tmp_path):
    for stem, (width, height), result in predict_all(trained, SEGMENTOR, folder, tmp_path):
        labels = np.array(Image.open(f'{stem}_labels.png'))
        assert labels.shape == (height, width)
        classes = ['ground', *CLASSES]
        shares = {classes[i]: (labels == i).mean() for i in np.unique(labels)}
        assert result['shares'] == pytest.approx(shares)


@pytest.mark.parametrize(
    ('name', 'bias'),
    [
        (DETECTOR, 'roi_head.bbox_head.fc_cls.bias'),
        (SEGMENTOR, 'decode_head.conv_seg.bias'),
        (CLASSIFIER, 'head.fc.bias'),
    ],
)
def test_a_class_without_a_name(trained, name, bias, folder, tmp_path):
    """As of a head that was trained with more outputs than the data have classes."""
    cfg, checkpoint = trained[name]
    content = read_checkpoint(checkpoint)
    content['state_dict'][bias][3] += 100
    names = content['meta']['dataset_meta']
    names.update(classes=names['classes'][:2], palette=names.get('palette', [(0, 0, 0)] * 2)[:2])
    torch.save(content, tmp_path / 'few.pth')
    predict = build_predictor(copy.deepcopy(cfg), str(tmp_path / 'few.pth'))
    with pytest.raises(DataError) as error:
        predict_file(predict, folder / 'scene.jpg')
    text = str(error.value)
    assert 'scene.jpg cannot be predicted: the model predicts a class without a name' in text
    assert 'but the checkpoint names 2 classes' in text


def test_classifier(trained, folder, tmp_path):
    for _, _, result in predict_all(trained, CLASSIFIER, folder, tmp_path):
        scores = result['pred_scores']
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert result['pred_class'] == CLASSES[int(np.argmax(scores))]
        assert result['pred_score'] == max(scores)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason='the CPU has no units for bfloat16')
@pytest.mark.parametrize('name', FOLDERS)
def test_bfloat16(trained, folder, name):
    exact, rounded = (
        build_predictor(*trained[name], dtype)(folder / 'scene.jpg')
        for dtype in ('float32', 'bfloat16')
    )
    if name == SEGMENTOR:
        assert np.mean(exact.labels == rounded.labels) > 0.9
    else:
        scores = 'pred_scores' if name == CLASSIFIER else 'scores'
        best = [max(prediction.result[scores]) for prediction in (exact, rounded)]
        assert best[0] != best[1]
        assert best[0] == pytest.approx(best[1], rel=0.05)


def test_checkpoints_of_others(trained, tmp_path):
    cfg = trained[CLASSIFIER][0]
    with pytest.raises(CheckpointError, match='not of this config'):
        build_predictor(cfg, trained[SEGMENTOR][1])
    torch.save(dict(state_dict=argparse.Namespace()), tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match='refused'):
        build_predictor(cfg, str(tmp_path / 'bad.pth'))


def test_no_hosts_config(trained):
    cfg, checkpoint = trained[CLASSIFIER]
    with pytest.raises(UserError, match='default_scope'):
        build_predictor(type(cfg)(dict(default_scope='mmpose')), checkpoint)


def test_files_found(folder, capsys):
    def names(images):
        return {
            str(path.relative_to(folder)): str(stem)
            for path, stem in plan_files(images, 'out', False).items()
        }

    everything = {
        'below/scene.PNG': 'out/below/scene',
        'grey.png': 'out/grey',
        'scene.jpg': 'out/scene',
    }
    assert names(str(folder)) == everything
    assert names(f'{folder}/**/*.[jpP]*') == everything
    assert names(f'{folder}/below/*') == {'below/scene.PNG': 'out/scene'}
    assert names(f'{folder}/scene.jpg') == {'scene.jpg': 'out/scene'}
    Image.open(folder / 'grey.png').save(folder / 'moving.gif')
    (folder / '.hidden').touch()
    capsys.readouterr()
    assert names(str(folder)) == everything | {'moving.gif': 'out/moving'}
    message = capsys.readouterr().err
    assert f'1 files in {folder} are left out; OpenCV cannot read them' in message
    assert '(1 .txt)' in message
    for nothing in ('absent.png', '*.avif'):
        with pytest.raises(UserError, match='found no image'):
            plan_files(str(folder / nothing), 'out', False)
    for unset in ((str(folder), ''), ('', 'out')):
        with pytest.raises(UserError, match='empty string'):
            plan_files(*unset, False)


def test_nothing_is_overwritten(folder):
    with pytest.raises(UserError, match=r'grey\.png.* is .*grey\.png.*--out'):
        plan_files(os.path.relpath(folder), str(folder), False)
    shutil.copy(folder / 'scene.jpg', folder / 'grey.jpg')
    with pytest.raises(UserError, match=r'grey\.jpg'):
        plan_files(str(folder), 'out', False)


def test_label_maps_are_no_other_images_picture(folder):
    shutil.copy(folder / 'scene.jpg', folder / 'scene_labels.jpg')
    assert len(plan_files(str(folder), 'out', label_maps=False)) == 4
    with pytest.raises(UserError, match=r'out/scene_labels\.png, to be written for .*scene_labels'):
        plan_files(str(folder), 'out', label_maps=True)


def test_files_beside_the_images_stay(folder):
    (folder / 'below' / 'scene.json').write_text('of labelme')
    photos = f'{folder}/**/*.[jP][pN]*'
    with pytest.raises(UserError, match=r'below/scene\.json.* already exists: use another --out'):
        plan_files(photos, str(folder), False)
    (folder / 'below' / 'scene.PNG').unlink()
    assert plan_files(photos, str(folder), False) == {folder / 'scene.jpg': folder / 'scene'}
    (folder / 'scene_labels.png').touch()
    with pytest.raises(UserError, match=r'scene_labels\.png.* already exists'):
        plan_files(photos, str(folder), True)


def test_another_run_into_its_own_folder(folder, tmp_path):
    first, again = (plan_files(str(folder), str(tmp_path / 'out'), True) for _ in range(2))
    assert first == again
    make_folders(first.values())
    for stem in first.values():
        Path(f'{stem}.json').touch()
    assert plan_files(str(folder), str(tmp_path / 'out'), True) == first


@pytest.mark.parametrize('out', ['notes.txt', 'notes.txt/below', '/proc/nowhere'])
def test_where_nothing_can_be_written(folder, out, tool_error):
    """That is said before the checkpoint is looked for."""
    config = ROOT / 'configs' / 'demo' / f'{CLASSIFIER}.py'
    out = str(folder / out)
    message = tool_error('predict.py', config, 'absent.pth', folder / 'scene.jpg', '--out', out)
    assert message.startswith(f'error: cannot write to {out} ')
    assert 'use another --out' in message


def test_a_file_gone_meanwhile(folder):
    assert image_problem(folder / 'gone.png') == 'cannot be opened: No such file or directory'


def test_the_tool_lists_what_it_cannot_read(tool_error, trained, folder, tmp_path, capsys):
    cfg, checkpoint = trained[DETECTOR]
    cfg.dump(tmp_path / 'config.py')
    (folder / 'cut.jpg').write_bytes((folder / 'scene.jpg').read_bytes()[:-300])
    (folder / 'empty.png').touch()
    shutil.copy(folder / 'notes.txt', folder / 'text.jpg')
    (folder / 'link.jpg').symlink_to('gone.jpg')
    for name, size in (('a_wide.png', (300, 1)), ('high.png', (2, 3000))):
        Image.new('RGB', size).save(folder / name)
    message = tool_error(
        'predict.py', tmp_path / 'config.py', checkpoint, folder, '--out', tmp_path / 'out'
    )
    output = '\n'.join(capsys.readouterr())
    for name, word in (
        ('cut.jpg', 'cut short'), ('empty.png', 'empty'), ('text.jpg', 'is not an image'),
        ('link.jpg', 'cannot be opened: No such file'),
        ('a_wide.png', 'cannot be predicted, perhaps because it is too narrow'),
        ('high.png', 'cannot be predicted'),
    ):  # fmt: skip
        assert word in next(line for line in output.splitlines() if f'{folder / name} ' in line)
    assert '3 images predicted' in output
    assert message.startswith('error: 6 of 9 files could not be read or predicted')
    assert 'Traceback' not in output
    written = {str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*.*')}
    stems = ('scene', 'grey', 'below/scene')
    assert written == {f'{stem}.{suffix}' for stem in stems for suffix in ('png', 'json')}
