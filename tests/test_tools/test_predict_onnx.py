"""The standalone prediction tool agrees with mmdet, mmseg and mmpretrain."""

import importlib.util
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from pycocotools import mask as coco_mask

from mmcloformer.apis.predict import Predictor
from mmcloformer.config import Entry
from mmcloformer.datasets.shapes import CLASSES, SEG_METAINFO
from mmcloformer.export import export_onnx, make_graph
from mmcloformer.export.model import _read_step, describe
from tests.conftest import TOOLS
from tests.test_export.tiny_models import config_of, tiny_model

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
    entry = Entry('pipeline.1', step, type(transform))
    described = json.loads(json.dumps(_read_step(entry)))
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
    """Return config, checkpoint and ONNX file of a kind of model, of a fixed size."""
    folder = tmp_path_factory.mktemp('exported')

    def export(kind):
        config, checkpoint, out = (folder / f'{kind}{end}' for end in ('.py', '.pth', '.onnx'))
        if not out.exists():
            cfg = config_of('classifier' if kind == 'multi-label' else kind)
            if kind == 'multi-label':
                cfg.model.head = dict(
                    type='MultiLabelLinearClsHead', num_classes=4, in_channels=32, thr=0.5
                )
            cfg.dump(config)
            model = tiny_model(cfg)
            names = SEG_METAINFO['classes'] if kind == 'segmentor' else CLASSES
            meta = dict(dataset_meta=dict(classes=names))
            torch.save(dict(meta=meta, state_dict=model.state_dict()), checkpoint)
            graph = make_graph(model)
            shape = (128, 128) if cfg.default_scope != 'mmpretrain' else (64, 64)
            export_onnx(graph, out, shape, metadata=describe(cfg, graph, names, shape))
        return config, checkpoint, out

    return export


def test_without_torch_and_the_hosts(exported, shapes, tmp_path):
    out = tmp_path / 'results.json'
    folder = shapes / 'coco/val2017'
    assert '4 images' in predict_without_torch(exported('detector')[2], folder, '--out', out)
    assert len(json.loads(out.read_text())) == 4


@pytest.mark.parametrize(
    'kind',
    ['detector', 'segmentor', 'classifier', 'multi-label']
    + [pytest.param(kind, marks=pytest.mark.slow) for kind in ('mask-rcnn', 'faster-rcnn')],
)
def test_results_are_those_of_predict(exported, predict, shapes, tmp_path, kind):
    """Under the same names, for the same images."""
    config, checkpoint, model = exported(kind)
    host = Predictor(Config.fromfile(config), str(checkpoint), pictures=False)
    out = tmp_path / 'results.json'
    predict(model, shapes / 'coco/val2017', '--out', out)
    found = json.loads(out.read_text())
    assert len(found) == 4
    for result in found:
        prediction = host(result['image'])
        expected = prediction.result
        if 'class_map' in result:
            class_map = cv2.imread(result.pop('class_map'), cv2.IMREAD_UNCHANGED)
            assert (class_map != prediction.labels).mean() < 1e-3
            assert sum(result['shares'].values()) == pytest.approx(1)
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            if name == 'shares':
                assert result[name] == pytest.approx(value, abs=1e-3)
            elif name == 'masks':
                ious = coco_mask.iou(result[name], value, [0] * len(value))
                assert np.median(ious.max(1)) > 0.99
            elif name in ('bboxes', 'scores', 'pred_scores', 'pred_score'):
                np.testing.assert_allclose(result[name], value, atol=0.05)
        if kind == 'detector':
            assert len(result['names']) > 5
        assert set(result.get('names', ())) == set(expected.get('names', ()))


def scattered(shapes, folder):
    """Copies of an image, two of one name in different folders, and their COCO file."""
    scene = next((shapes / 'coco/val2017').glob('*')).read_bytes()
    names = ['a.png', 'below/a.png', 'below/deeper/b.PNG', 'link/c.png']
    (folder / 'images').mkdir()
    (folder / 'elsewhere').mkdir()
    (folder / 'images/link').symlink_to(folder / 'elsewhere')
    (folder / 'elsewhere/back').symlink_to(folder / 'images')
    for name in names:
        path = folder / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(scene)
    images = [dict(file_name=name, id=10 + i) for i, name in enumerate(names)]
    categories = [dict(name=name, id=7 + i) for i, name in enumerate(CLASSES)]
    annotations = folder / 'annotations.json'
    annotations.write_text(json.dumps(dict(images=images, categories=categories)))
    return folder / 'images', names, annotations


def test_ids_are_those_of_the_paths(exported, predict, shapes, tmp_path):
    images, names, annotations = scattered(shapes, tmp_path)
    model, out = exported('detector')[2], tmp_path / 'results.json'
    predict(model, images, '--out', out)
    results = json.loads(out.read_text())
    assert [result['image'] for result in results] == [str(images / name) for name in names]
    predict(model, images, '--out', out, '--annotations', annotations)
    records = json.loads(out.read_text())
    assert {record['image_id'] for record in records} == {10, 11, 12, 13}
    assert all(record['category_id'] == 7 + CLASSES.index(record['category']) for record in records)
    x1, y1, x2, y2 = results[0]['bboxes'][0]
    assert records[0]['bbox'] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
    for name in ('below/a.png', 'extra.png'):
        content = json.loads(annotations.read_text())
        content['images'] = [each for each in content['images'] if each['file_name'] != name]
        (tmp_path / 'fewer.json').write_text(json.dumps(content))
        (images / 'extra.png').write_bytes((images / 'a.png').read_bytes())
        printed = predict(
            model, images, '--out', out, '--annotations', tmp_path / 'fewer.json', fails=True
        )
        assert f'of the {len(names) + 1} images' in printed
        assert repr('below/a.png' if name == 'below/a.png' else 'extra.png') in printed


def test_label_maps_of_equal_names(exported, predict, shapes, tmp_path):
    images, names, _ = scattered(shapes, tmp_path)
    predict(exported('segmentor')[2], images, '--out', tmp_path / 'r.json')
    records = json.loads((tmp_path / 'r.json').read_text())
    maps = [record['class_map'] for record in records]
    assert maps == [str(tmp_path / f'r_maps/{name}.png') for name in names]


@pytest.mark.parametrize('change', ['cut', 'empty', 'ir_version', 'opset', 'operator', 'text'])
def test_files_that_onnxruntime_cannot_load(exported, predict, tmp_path, change):
    import onnx

    file = tmp_path / 'model.onnx'
    content = exported('detector')[2].read_bytes()
    model = onnx.load_from_string(content)
    if change == 'ir_version':
        model.ir_version = 99
    elif change == 'opset':
        model.opset_import[0].version = 99
    else:
        model.graph.node[0].op_type = 'OfTomorrow'
    whole = model.SerializeToString()
    short = dict(cut=content[: len(content) // 2], empty=b'', text=b'a text' * 99)
    file.write_bytes(short.get(change, whole))
    image = tmp_path / 'x.png'
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    printed = predict(file, image, '--out', tmp_path / 'r.json', fails=True)
    assert re.fullmatch(rf'error: onnxruntime [\d.]+ cannot load {file}: .*', printed)
    assert 'newer onnxruntime' in printed


def test_a_fixed_size_takes_any_image(exported, predict, tmp_path):
    """An image and the same image at twice the size give the same instances."""
    model = exported('detector')[2]
    image = cv2.GaussianBlur(np.random.RandomState(0).rand(96, 128, 3) * 255, (0, 0), 8)
    image = image.astype(np.uint8)
    for name, factor in (('small', 1), ('large', 2)):
        large = np.repeat(np.repeat(image, factor, 0), factor, 1)
        cv2.imwrite(str(tmp_path / f'{name}.png'), large)
    predict(model, tmp_path, '--out', tmp_path / 'results.json')
    large, small = json.loads((tmp_path / 'results.json').read_text())
    assert len(small['bboxes']) == len(large['bboxes']) > 5
    np.testing.assert_allclose(np.float32(small['bboxes']) * 2, large['bboxes'], atol=0.5)
    # The lowest quarter of the input is padding.
    assert np.max(small['bboxes'], axis=0)[3] <= 96


def test_a_folder_with_broken_and_odd_files(exported, predict, shapes, tmp_path):
    """Unreadable files are reported, and all images are predicted, however narrow."""
    model = exported('detector')[2]
    folder = tmp_path / 'images'
    folder.mkdir()
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
    line = next(line for line in printed.splitlines() if str(folder / 'link.jpg') in line)
    assert 'No such file' in line
    assert '3 images, results in' in printed
    assert 'error: 3 of 6 images' in printed
    assert 'Traceback' not in printed
    assert str(folder / 'whole.png') in {each['image'] for each in json.loads(out.read_text())}


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
        tool.write_map(np.zeros((2, 2), np.int32), tmp_path / 'y.png.png')


@pytest.mark.parametrize(
    ('given', 'labels'),
    [(dict(thr=0.15), [0, 1]), (dict(topk=1), [1]), (dict(thr=0.9), []), (None, None)],
)
def test_classes_of_an_image(tool, given, labels):
    model = tool.Model.__new__(tool.Model)
    model.names, model.multi_label = ['a', 'b', 'c'], given
    result = tool.to_result(dict(probabilities=np.float32([[0.2, 0.7, 0.1]])), model)
    if given is None:
        assert (result['pred_label'], result['pred_class']) == (1, 'b')
    else:
        assert result['labels'] == labels
        assert result['names'] == ['abc'[label] for label in labels]


@pytest.mark.parametrize(('label', 'kind'), [(255, np.uint8), (256, np.uint16), (300, np.uint16)])
def test_label_maps_of_many_classes(tool, tmp_path, label, kind):
    path = tool.write_map(np.full((2, 2), label, np.int32), tmp_path / 'below' / 'x.png')
    found = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    assert found.dtype == kind
    assert (found == label).all()


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
    assert [*found.values()] == ['a.PNG', 'b.jp2', 'damaged.jpg']
    assert f'1 files in {tmp_path} are left out' in capsys.readouterr().err


@pytest.mark.parametrize('size', [(32, 32), (64, 48), (96, 96)])
def test_a_classifier_gets_no_padding(tool, size):
    """Padding changes the scores of a classifier; boxes and maps are cropped."""
    model = tool.Model.__new__(tool.Model)
    model.metadata = dict(task='classification', channels='RGB', mean=[0.0], std=[1.0])
    shape = SimpleNamespace(shape=[1, 3, 64, 64])
    model.session = SimpleNamespace(get_inputs=lambda: [shape])
    image = np.zeros((*size, 3), np.uint8)
    with pytest.raises(ValueError, match='--shape'):
        model.normalise(image)
    assert model.normalise(np.zeros((64, 64, 3), np.uint8)).shape == (1, 3, 64, 64)
