"""The standalone prediction tool agrees with mmdet, mmseg and mmpretrain."""

import importlib.util
import json
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS, init_default_scope
from pycocotools import mask as coco_mask

from mmcloformer.datasets.shapes import CLASSES, SEG_METAINFO
from mmcloformer.export import export_onnx, make_graph
from mmcloformer.export.model import _read_step, describe
from tests.conftest import TOOLS, coco_options
from tests.test_export.tiny_models import NAMES, tiny_config, tiny_model

TOOL = TOOLS['predict_onnx.py']
# Makes the import of any package of the training stack fail.
BLOCKER = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {blocked}:
            raise ImportError(f'{{name}} is blocked')
sys.meta_path.insert(0, Blocker())
sys.argv = {argv}
runpy.run_path(sys.argv[0], run_name='__main__')
"""
BLOCKED = {
    'torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmcloformer',
    'pycocotools', 'onnx', 'onnxscript', 'matplotlib', 'PIL',
}  # fmt: skip


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('predict_onnx', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def predict_without_torch(*args):
    """Run the tool in a process that cannot import the training stack."""
    argv = list(map(str, [TOOL, *args]))
    script = BLOCKER.format(blocked=BLOCKED, argv=argv)
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def predict(tool, monkeypatch, capsys):
    """Run the tool in this process and return what it prints, its error message included."""

    def run(*args, fails=False):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        message = ''
        if fails:
            with pytest.raises(SystemExit) as exit_info:
                tool.main()
            message = exit_info.value.code
            assert isinstance(message, str)  # sys.exit prints it and exits with 1.
        else:
            tool.main()
        captured = capsys.readouterr()
        return captured.out + captured.err + message

    return run


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Resize', scale=(133, 80), keep_ratio=True),
        dict(type='Resize', scale=(90, 70), interpolation='bicubic'),
        dict(type='Resize', scale=64, backend='pillow', interpolation='bicubic'),
        dict(type='ResizeEdge', scale=64, backend='pillow', interpolation='bicubic'),
        dict(type='ResizeEdge', scale=50, edge='long'),
        dict(type='CenterCrop', crop_size=41),
        dict(type='CenterCrop', crop_size=(30, 45)),
    ],
    ids=str,
)
def test_steps_equal_those_of_mmcv_and_mmpretrain(tool, step):
    init_default_scope('mmpretrain')
    __import__('mmpretrain.datasets')
    transform = TRANSFORMS.build(dict(step))
    described = json.loads(json.dumps(dict(type=step['type'], **_read_step(step['type'], step))))
    rng = np.random.RandomState(0)
    for height, width in ((101, 150), (177, 99), (64, 64)):
        image = rng.randint(0, 256, (height, width, 3), np.uint8)
        expected = transform(dict(img=image, img_shape=image.shape[:2]))['img']
        found = tool.STEPS[step['type']](image, described)
        assert np.array_equal(found, expected)


def test_fit_keeps_the_ratio(tool):
    step = dict(shape=[60, 100], interpolation='bilinear', backend='cv2')
    for shape, expected in (((30, 40), (60, 80)), ((400, 50), (60, 8)), ((50, 200), (25, 100))):
        assert tool.fit_step(np.zeros((*shape, 3), np.uint8), step).shape[:2] == expected


def test_masks_are_pasted_as_by_mmdet(tool):
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    rng = np.random.RandomState(0)
    for _ in range(20):
        mask = cv2.GaussianBlur(rng.rand(28, 28).astype(np.float32), (0, 0), 3)
        mask -= np.median(mask) - 0.5
        corners = np.sort(rng.uniform(-10, 90, (2, 2)), axis=0)
        box = np.float32(corners.ravel())
        expected = _do_paste_mask(
            torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None], 70, 80, False
        )[0][0]
        found = tool.paste(mask, box, 70, 80)
        assert np.mean(found != (expected >= 0.5).numpy()) < 1e-3


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 1])
def test_masks_are_encoded_as_by_pycocotools(tool, share):
    rng = np.random.RandomState(0)
    for shape in ((1, 1), (7, 300), (120, 90)):
        mask = rng.rand(*shape) < share
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        found = tool.encode(mask)
        assert found == dict(size=list(shape), counts=expected['counts'].decode())


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Return config, checkpoint and ONNX file of a kind of model, for inputs of 128x128."""
    folder = tmp_path_factory.mktemp('exported')
    classes = {'detector': CLASSES, 'mask-rcnn': CLASSES, 'segmentor': SEG_METAINFO['classes']}

    def export(kind):
        config, checkpoint, out = (folder / f'{kind}{end}' for end in ('.py', '.pth', '.onnx'))
        if not out.exists():
            cfg = tiny_config(NAMES[kind])
            cfg.dump(config)
            model = tiny_model(cfg, NAMES[kind].partition('_')[0])
            torch.save(dict(meta={}, state_dict=model.state_dict()), checkpoint)
            graph = make_graph(model)
            about = describe(cfg, graph, classes[kind], (128, 128))
            export_onnx(graph, out, (128, 128), metadata=about)
        return config, checkpoint, out

    return export


@pytest.mark.parametrize('kind', ['detector', pytest.param('mask-rcnn', marks=pytest.mark.slow)])
def test_instances_are_those_of_the_test_tool(exported, shapes, run_tool, tmp_path, kind):
    config, checkpoint, model = exported(kind)
    annotations = shapes / 'coco/annotations/instances_val2017.json'
    out, expected = tmp_path / 'results.json', tmp_path / 'expected.pkl'
    printed = predict_without_torch(
        model, shapes / 'coco/val2017', '--out', out, '--annotations', annotations
    )
    assert '4 images' in printed
    run_tool(
        'test.py', config, checkpoint, '--work-dir', tmp_path, '--out', expected,
        '--cfg-options', *coco_options(shapes / 'coco'),
    )  # fmt: skip
    records = json.loads(out.read_text())
    ids = {c['name']: c['id'] for c in json.loads(annotations.read_text())['categories']}
    for image in pickle.loads(expected.read_bytes()):
        instances = image['pred_instances']
        found = [record for record in records if record['image_id'] == image['img_id']]
        assert len(found) == len(instances['scores']) > 5
        scores = [record['score'] for record in found]
        np.testing.assert_allclose(scores, instances['scores'], atol=1e-4)
        for record in found:
            x, y, w, h = record['bbox']
            assert record['category_id'] == ids[record['category']]
            apart = np.abs(np.float32([x, y, x + w, y + h]) - instances['bboxes'].numpy()).max(1)
            same = apart < 0.05
            assert any(
                record['category'] == tuple(ids)[label] for label in instances['labels'][same]
            )
            if kind == 'mask-rcnn':
                masks = [instances['masks'][i] for i in np.flatnonzero(same)]
                ious = coco_mask.iou([record['segmentation']], masks, [0] * len(masks))
                assert ious.max() > 0.99


def test_a_fixed_size_takes_any_image(exported, predict, tmp_path):
    """An image and the same image at twice the size give the same instances."""
    model = exported('detector')[2]
    image = cv2.GaussianBlur(np.random.RandomState(0).rand(96, 128, 3) * 255, (0, 0), 8)
    image = image.astype(np.uint8)
    for name, factor in (('small', 1), ('large', 2)):
        large = np.repeat(np.repeat(image, factor, 0), factor, 1)
        cv2.imwrite(str(tmp_path / f'{name}.png'), large)
    predict(model, tmp_path, '--out', tmp_path / 'results.json')
    records = json.loads((tmp_path / 'results.json').read_text())
    small, large = (
        [record for record in records if record['image_id'] == f'{name}.png']
        for name in ('small', 'large')
    )
    assert len(small) == len(large) > 5
    for a, b in zip(small, large):
        np.testing.assert_allclose(np.float32(a['bbox']) * 2, b['bbox'], atol=0.5)
        # The lowest quarter of the input is padding.
        assert a['bbox'][1] + a['bbox'][3] <= 96


@pytest.mark.slow
def test_class_maps_are_those_of_mmseg(exported, predict, shapes, tmp_path):
    config, checkpoint, model = exported('segmentor')
    out = tmp_path / 'results.json'
    folder = shapes / 'ade20k/images/validation'
    predict(model, folder, '--out', out)
    records = json.loads(out.read_text())
    assert [record['image'] for record in records] == sorted(p.name for p in folder.glob('*'))

    from mmseg.apis import inference_model, init_model

    host = init_model(str(config), str(checkpoint), device='cpu')
    for record in records:
        found = cv2.imread(record['class_map'], cv2.IMREAD_UNCHANGED)
        expected = inference_model(host, str(folder / record['image'])).pred_sem_seg.data[0]
        assert (found != expected.numpy()).mean() < 1e-3
        assert sum(record['pixels'].values()) == found.size


def test_a_folder_with_broken_and_odd_files(exported, predict, shapes, tmp_path):
    """Unreadable files are reported, and all images are predicted, however narrow."""
    model = exported('detector')[2]
    folder = tmp_path / 'images'
    (folder / 'folder.jpg').mkdir(parents=True)
    source = next((shapes / 'coco/val2017').glob('*'))
    (folder / 'whole.png').write_bytes(source.read_bytes())
    (folder / 'cut.png').write_bytes(b'\x89PNG')
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'link.jpg').symlink_to('gone.jpg')
    (folder / 'notes.txt').write_text('no image')
    for name, shape in (('a_wide.png', (1, 300, 3)), ('high.png', (3000, 2, 3))):
        cv2.imwrite(str(folder / name), np.zeros(shape, np.uint8))
    out = tmp_path / 'results.json'
    printed = predict(model, folder, '--out', out, fails=True)
    assert printed.count('opencv cannot read this file as an image') == 2
    for name, reason in (('folder.jpg', 'Is a directory'), ('link.jpg', 'No such file')):
        assert reason in next(line for line in printed.splitlines() if str(folder / name) in line)
    assert '3 images, results in' in printed
    assert 'error: 4 of 7 images' in printed
    assert 'Traceback' not in printed
    assert 'whole.png' in {record['image_id'] for record in json.loads(out.read_text())}


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Resize', scale=(60, 30), keep_ratio=True),
        dict(type='ResizeEdge', scale=40, edge='long'),
        dict(type='Fit', shape=(30, 60)),
    ],
    ids=lambda step: step['type'],
)
def test_no_side_shrinks_to_zero(tool, step):
    step = dict(step, interpolation='bilinear', backend='cv2')
    for shape in ((1, 300), (3000, 2)):
        resized = tool.STEPS[step['type']](np.zeros((*shape, 3), np.uint8), step)
        assert min(resized.shape[:2]) == 1


def test_annotations_of_other_classes(exported, predict, tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((8, 8, 3), np.uint8))
    wrong = tmp_path / 'wrong.json'
    args = (exported('detector')[2], tmp_path, '--out', tmp_path / 'r.json', '--annotations', wrong)
    wrong.write_text(json.dumps(dict(images=[], categories=[dict(name=CLASSES[0], id=1)])))
    printed = predict(*args, fails=True)
    lacking = f'lacks {len(CLASSES) - 1} of the {len(CLASSES)} classes of the model'
    assert f'error: --annotations {wrong} {lacking}, for example {CLASSES[1]!r}' in printed
    wrong.write_text('[]')
    assert f'error: --annotations {wrong} cannot be read as a COCO file' in predict(
        *args, fails=True
    )


def test_results_that_cannot_be_written(tool, exported, predict, tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((8, 8, 3), np.uint8))
    printed = predict(exported('detector')[2], tmp_path, '--out', tmp_path, fails=True)
    assert f'error: --out {tmp_path} cannot be written: Is a directory' in printed
    (tmp_path / 'y.png.png').mkdir()
    with pytest.raises(OSError, match='cannot be written'):
        tool.to_map(dict(class_map=np.zeros((2, 2), np.int32)), ['a'], 'y.png', tmp_path)


def test_classes_are_ranked(tool):
    names = ['a', 'b', 'c']
    results = dict(probabilities=np.float32([[0.2, 0.7, 0.1]]))
    (record,) = tool.to_ranking(results, names, 'x.png')
    assert [c['name'] for c in record['classes']] == ['b', 'a', 'c']


def test_another_onnx_file_is_refused(predict, tmp_path):
    import onnx

    node = onnx.helper.make_node('Identity', ['x'], ['y'])
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in 'xy']
    graph = onnx.helper.make_graph([node], 'other', ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid('', 20)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / 'o.onnx'
    )
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((8, 8, 3), np.uint8))
    printed = predict(tmp_path / 'o.onnx', tmp_path, '--out', tmp_path / 'r.json', fails=True)
    assert 'was not written by export_onnx.py' in printed


def test_images_are_what_opencv_reads(tool, tmp_path, capsys):
    picture = np.zeros((8, 8, 3), np.uint8)
    for name in ('a.PNG', 'b.jp2'):
        cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / 'damaged.jpg').touch()  # Reported when its turn comes.
    (tmp_path / 'notes.txt').write_text('no image')
    found = tool.find_images(tmp_path)
    assert [path.name for path in found] == ['a.PNG', 'b.jp2', 'damaged.jpg']
    assert f'1 files in {tmp_path} are left out' in capsys.readouterr().err
