"""The tools that export a model to ONNX and predict with the file."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from pycocotools import mask as coco_mask

from mmcloformer.apis.predict import Predictor
from mmcloformer.config import Entry
from mmcloformer.datasets.shapes import CLASSES, SEG_METAINFO
from mmcloformer.export.model import _read_step
from mmcloformer.export.onnx_file import OPSETS
from tests.conftest import TOOLS, load_tool
from tests.test_export.tiny_models import config_of, tiny_model

TOOL = TOOLS['predict_onnx.py']
SLOW = pytest.mark.slow
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


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Write the config and the checkpoint of a small model of a kind."""
    folder = tmp_path_factory.mktemp('files')

    def write(kind):
        config, checkpoint = folder / f'{kind}.py', folder / f'{kind}.pth'
        if not config.exists():
            cfg = config_of('classifier' if kind == 'multi-label' else kind)
            if kind == 'multi-label':
                cfg.model.head = dict(
                    type='MultiLabelLinearClsHead', num_classes=4, in_channels=32, thr=0.5
                )
            cfg.dump(config)
            names = SEG_METAINFO['classes'] if kind == 'segmentor' else CLASSES
            meta = dict(dataset_meta=dict(classes=names))
            torch.save(dict(meta=meta, state_dict=tiny_model(cfg).state_dict()), checkpoint)
        return config, checkpoint

    return write


@pytest.fixture(scope='module')
def exported(files, tool_main, shapes):
    """Export a kind of model at a fixed size; return the file and what the tool prints."""
    done = {}

    def export(kind):
        if kind not in done:
            config, checkpoint = files(kind)
            out = config.with_suffix('.onnx')
            side = 64 if kind in ('classifier', 'multi-label') else 128
            printed = tool_main(
                'export_onnx.py', config, checkpoint, out, '--shape', side, side,
                '--verify', shapes / 'coco/val2017',
            )  # fmt: skip
            done[kind] = out, printed
        return done[kind]

    return export


def metadata(path):
    properties = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in properties.items()}


def test_an_export_is_compared_and_described(exported):
    out, printed = exported('detector')
    assert f'{out}: detection' in printed
    assert 'on 4 images' in printed
    for quantity in ('box, pixels', 'score'):
        assert float(re.search(rf'{quantity}: (\S+)', printed)[1]) < 1e-2
    about = metadata(out)
    assert about['classes'] == ['ring', 'square', 'star', 'triangle']
    assert about['steps'][0]['shape'] == [128, 128]
    assert about['config'] == 'detector.py'
    assert about['onnxruntime'] == '1.17'
    assert 'onnxruntime 1.17 or newer' in printed
    (images,) = onnxruntime.InferenceSession(out).get_inputs()
    assert images.shape == [1, 3, 128, 128]


@pytest.mark.parametrize('opset', [18, *(pytest.param(each, marks=SLOW) for each in (19, 21))])
def test_opsets(files, tool_main, shapes, tmp_path, opset):
    out = tmp_path / 'model.onnx'
    tool_main(
        'export_onnx.py', *files('classifier'), out, '--shape', 64, 64, '--opset', opset,
        '--verify', shapes / 'coco/val2017',
    )  # fmt: skip
    model = onnx.load(out)
    assert [each.version for each in model.opset_import if not each.domain] == [opset]
    assert (model.ir_version, metadata(out)['onnxruntime']) == OPSETS[opset]


@pytest.mark.parametrize('scope', ['mmpose', None])
def test_configs_of_other_hosts(files, tool_error, tmp_path, scope):
    (tmp_path / 'other.py').write_text(f"default_scope = {scope!r}\nmodel = dict(type='Other')\n")
    checkpoint = files('classifier')[1]
    message = tool_error('export_onnx.py', tmp_path / 'other.py', checkpoint, tmp_path / 'o.onnx')
    assert 'default_scope' in message


@pytest.mark.slow
def test_half_precision(files, run_tool, tmp_path):
    out = tmp_path / 'model.onnx'
    printed = run_tool(
        'export_onnx.py', *files('classifier'), out, '--shape', 64, 64, '--fp16', cwd=tmp_path
    )
    # The working directory has no demo data set, so the tool draws 8 scenes.
    assert 'on 8 images' in printed
    assert 0 < float(re.search(r'probability: (\S+)', printed)[1]) < 3e-2
    weights = [weight for weight in onnx.load(out).graph.initializer if len(weight.dims) == 4]
    assert {weight.data_type for weight in weights} == {onnx.TensorProto.FLOAT16}
    session = onnxruntime.InferenceSession(out)
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == 'tensor(float)'


@pytest.mark.nightly
@pytest.mark.parametrize('kind', ['segmentor', 'upernet', 'mask-rcnn', 'faster-rcnn'])
def test_the_others_at_any_size(files, run_tool, real_data, tmp_path, kind):
    folder = real_data / 'fruits_nuts/images'
    out = tmp_path / 'model.onnx'
    printed = run_tool(
        'export_onnx.py', *files(kind), out, '--shape', 256, 320, '--dynamic', '--verify', folder
    )
    assert 'on 8 images' in printed
    shape = onnxruntime.InferenceSession(out).get_inputs()[0].shape
    assert not any(isinstance(side, int) for side in shape[2:])


def test_disagreement_is_an_error(exported, files, tool_error, shapes, tmp_path, monkeypatch):
    """The file is of other weights than the checkpoint."""
    config, _ = files('classifier')
    state = tiny_model(Config.fromfile(config), seed=1).state_dict()
    torch.save(state, tmp_path / 'other.pth')
    model, _ = exported('classifier')
    tool = load_tool('export_onnx.py')['main'].__globals__
    monkeypatch.setitem(tool, 'export_onnx', lambda graph, out, *args: shutil.copy(model, out))
    message = tool_error(
        'export_onnx.py', config, tmp_path / 'other.pth', tmp_path / 'model.onnx',
        '--shape', 64, 64, '--verify', shapes / 'coco/val2017',
    )  # fmt: skip
    assert 'onnxruntime disagrees with PyTorch on' in message


@pytest.mark.parametrize(
    ('out', 'options', 'message'),
    [
        ('o.onnx', ('--verify', 'tests'), '--verify tests contains no images'),
        ('o.onnx', ('--shape', 0, 64), '--shape is 0 64'),
        ('.', (), 'is a directory; give the name of the file to write'),
    ],
)
def test_arguments_are_checked_before_the_export(
    files, tool_error, tmp_path, out, options, message
):
    path = tmp_path / out
    assert message in tool_error('export_onnx.py', *files('classifier'), path, *options)
    assert not path.is_file()


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Resize', scale=(133, 80), keep_ratio=True),
        dict(type='Resize', scale=60, keep_ratio=True),
        dict(type='Resize', scale=(90, 70), interpolation='bicubic'),
        dict(type='Resize', scale=64, backend='pillow', interpolation='bicubic'),
        dict(type='ResizeEdge', scale=64, backend='pillow', interpolation='bicubic'),
        dict(type='ResizeEdge', scale=50, edge='long'),
        dict(type='ResizeEdge', scale=50, edge='width'),
        dict(type='CenterCrop', crop_size=41),
        dict(type='CenterCrop', crop_size=(30, 45)),
    ],
    ids=str,
)
def test_steps_equal_those_of_mmcv_and_mmpretrain(tool, step):
    init_default_scope('mmpretrain')
    __import__('mmpretrain.datasets')
    transform = TRANSFORMS.build(dict(step))
    described = json.loads(json.dumps(_read_step(Entry('pipeline.1', step, type(transform)))))
    rng = np.random.RandomState(0)
    for height, width in ((101, 150), (177, 99), (64, 64)):
        image = rng.randint(0, 256, (height, width, 3), np.uint8)
        expected = transform(dict(img=image, img_shape=image.shape[:2]))['img']
        assert np.array_equal(tool.apply_step(image, described), expected)


@pytest.mark.parametrize(
    ('step', 'shapes'),
    [
        (dict(type='Fit', shape=[60, 100]), {(30, 40): (60, 80), (400, 50): (60, 8)}),
        # No side shrinks to nothing.
        (dict(type='Fit', shape=[30, 60]), {(1, 300): (1, 60), (3000, 2): (30, 1)}),
        (dict(type='Resize', scale=(60, 30), keep_ratio=True), {(1, 300): (1, 60)}),
        (dict(type='ResizeEdge', scale=40, edge='long'), {(3000, 2): (40, 1)}),
    ],
    ids=str,
)
def test_sizes(tool, step, shapes):
    step = dict(step, interpolation='bilinear', backend='cv2')
    for shape, expected in shapes.items():
        assert tool.apply_step(np.zeros((*shape, 3), np.uint8), step).shape[:2] == expected


def test_masks_are_pasted_as_by_mmdet(tool):
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    rng = np.random.RandomState(0)
    for _ in range(20):
        mask = cv2.GaussianBlur(rng.rand(28, 28).astype(np.float32), (0, 0), 3)
        mask -= np.median(mask) - 0.5
        box = np.float32(np.sort(rng.uniform(-10, 90, (2, 2)), axis=0).ravel())
        expected = _do_paste_mask(
            torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None], 70, 80, False
        )[0][0]
        found = tool.paste(mask, box, 70, 80)
        assert np.mean(found != (expected >= 0.5).numpy()) < 1e-3


def test_a_mask_that_reaches_into_the_padding_keeps_its_place(tool):
    """Its left half is the object, of a box of which the image cuts off the right half."""
    model = object.__new__(tool.Model)
    fit = dict(type='Fit', shape=[64, 96], interpolation='bilinear', backend='cv2')
    model.names = ['a']
    model.metadata = dict(task='instance segmentation', channels='BGR', mean=[0], std=[1])
    model.metadata['steps'] = [fit]
    mask = np.repeat([1, 0], 14)[None].repeat(28, axis=0).astype(np.float32)
    outputs = dict(boxes=np.float32([[40, 8, 88, 56]]), scores=np.float32([0.9]))
    outputs |= dict(labels=np.array([0]), masks=mask[None])
    model.session = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(shape=[1, 3, 64, 96])],
        get_outputs=lambda: [SimpleNamespace(name=name) for name in outputs],
        run=lambda names, inputs: [outputs[name] for name in names],
    )
    result = model(np.zeros((64, 64, 3), np.uint8))
    assert result['bboxes'] == [[40, 8, 64, 56]]
    found = coco_mask.decode(dict(result['masks'][0], counts=result['masks'][0]['counts'].encode()))
    assert found[8:56, 40:64].mean() > 0.95
    assert not found[:, :39].any()


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 1])
def test_masks_are_encoded_as_by_pycocotools(tool, share):
    rng = np.random.RandomState(0)
    for shape in ((1, 1), (7, 300), (120, 90)):
        mask = rng.rand(*shape) < share
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert tool.encode(mask) == dict(size=list(shape), counts=expected['counts'].decode())


def test_without_torch_and_the_hosts(exported, shapes, tmp_path):
    out = tmp_path / 'results.json'
    argv = [*map(str, (TOOL, exported('detector')[0], shapes / 'coco/val2017', '--out', out))]
    script = BLOCKER.format(blocked=BLOCKED, argv=argv)
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '4 images' in done.stdout
    assert len(json.loads(out.read_text())) == 4


@pytest.mark.parametrize(
    'kind',
    ['detector', 'segmentor', 'classifier']
    + [pytest.param(kind, marks=SLOW) for kind in ('multi-label', 'mask-rcnn', 'faster-rcnn')],
)
def test_results_are_those_of_predict(exported, files, predict, shapes, tmp_path, kind):
    """Under the same names, for the same images."""
    config, checkpoint = files(kind)
    host = Predictor(Config.fromfile(config), str(checkpoint), pictures=False)
    out = tmp_path / 'results.json'
    predict(exported(kind)[0], shapes / 'coco/val2017', '--out', out)
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


@pytest.mark.parametrize(
    ('given', 'labels'), [(dict(thr=0.15), [0, 1]), (dict(topk=1), [1]), (dict(thr=0.9), [])]
)
def test_classes_of_an_image(tool, given, labels):
    result = tool.classify(np.float32([0.2, 0.7, 0.1]), ['a', 'b', 'c'], given)
    assert result['labels'] == labels
    assert result['names'] == ['abc'[label] for label in labels]


@pytest.fixture
def scattered(shapes, tmp_path):
    """Copies of an image, two of one name in different folders, and their COCO file."""
    scene = next((shapes / 'coco/val2017').glob('*')).read_bytes()
    names = ['a.png', 'below/a.png', 'below/deeper/b.PNG', 'link/c.png']
    (tmp_path / 'images').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'images/link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/back').symlink_to(tmp_path / 'images')
    for name in names:
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(scene)
    images = [dict(file_name=name, id=10 + i) for i, name in enumerate(names)]
    categories = [dict(name=name, id=7 + i) for i, name in enumerate(CLASSES)]
    annotations = tmp_path / 'annotations.json'
    annotations.write_text(json.dumps(dict(images=images, categories=categories)))
    return tmp_path / 'images', names, annotations


def test_ids_are_those_of_the_paths(exported, predict, scattered, tmp_path):
    images, names, annotations = scattered
    model, out = exported('detector')[0], tmp_path / 'results.json'
    predict(model, images, '--out', out)
    results = json.loads(out.read_text())
    assert [result['image'] for result in results] == [str(images / name) for name in names]
    predict(model, images, '--out', out, '--annotations', annotations)
    records = json.loads(out.read_text())
    assert {record['image_id'] for record in records} == {10, 11, 12, 13}
    assert all(record['category_id'] == 7 + CLASSES.index(record['category']) for record in records)
    x1, y1, x2, y2 = results[0]['bboxes'][0]
    assert records[0]['bbox'] == pytest.approx([x1, y1, x2 - x1, y2 - y1])


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(images=[dict(file_name='a.png', id=1)]), "of the 4 images.* 'below/a.png'"),
        (dict(categories=[dict(name=CLASSES[0], id=1)]), f'classes.* {CLASSES[1]!r}'),
        (dict(images=None), 'cannot be read as a COCO file'),
    ],
)
def test_annotations_of_other_data(exported, predict, scattered, tmp_path, change, said):
    images, _, annotations = scattered
    annotations.write_text(json.dumps(json.loads(annotations.read_text()) | change))
    args = (exported('detector')[0], images, '--out', tmp_path / 'r.json')
    printed = predict(*args, '--annotations', annotations, fails=True)
    assert re.search(f'error: --annotations {annotations} .*{said}', printed)


def test_label_maps_of_equal_names(exported, predict, scattered, tmp_path):
    images, names, _ = scattered
    predict(exported('segmentor')[0], images, '--out', tmp_path / 'r.json')
    records = json.loads((tmp_path / 'r.json').read_text())
    maps = [record['class_map'] for record in records]
    assert maps == [str(tmp_path / f'r_maps/{name}.png') for name in names]


@pytest.mark.parametrize(('label', 'kind'), [(255, np.uint8), (256, np.uint16)])
def test_label_maps_of_many_classes(tool, tmp_path, label, kind):
    path = tool.write_map(np.full((2, 2), label, np.int32), tmp_path / 'below' / 'x.png')
    found = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    assert found.dtype == kind
    assert (found == label).all()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / 'x.png'
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    return path


@pytest.mark.parametrize('change', ['cut', 'empty', 'ir_version', 'opset', 'text', 'other'])
def test_files_that_onnxruntime_cannot_load(exported, predict, picture, tmp_path, change):
    file = tmp_path / 'model.onnx'
    content = exported('detector')[0].read_bytes()
    model = onnx.load_from_string(content)
    if change == 'ir_version':
        model.ir_version = 99
    elif change == 'opset':
        model.opset_import[0].version = 99
    else:  # of another program
        del model.metadata_props[:]
    whole = model.SerializeToString()
    short = dict(cut=content[: len(content) // 2], empty=b'', text=b'a text' * 99)
    file.write_bytes(short.get(change, whole))
    printed = predict(file, picture, '--out', tmp_path / 'r.json', fails=True)
    if change == 'other':
        assert 'was not written by export_onnx.py' in printed
    else:
        assert re.fullmatch(rf'error: onnxruntime [\d.]+ cannot load {file}: .*', printed)
        assert 'newer onnxruntime' in printed


def test_a_fixed_size_takes_any_image(exported, predict, tmp_path):
    """An image and the same image at twice the size give the same instances."""
    image = cv2.GaussianBlur(np.random.RandomState(0).rand(96, 128, 3) * 255, (0, 0), 8)
    image = image.astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'small.png'), image)
    cv2.imwrite(str(tmp_path / 'large.png'), image.repeat(2, 0).repeat(2, 1))
    predict(exported('detector')[0], tmp_path, '--out', tmp_path / 'results.json')
    large, small = json.loads((tmp_path / 'results.json').read_text())
    assert len(small['bboxes']) == len(large['bboxes']) > 5
    np.testing.assert_allclose(np.float32(small['bboxes']) * 2, large['bboxes'], atol=0.5)
    # The lowest quarter of the input is padding.
    assert np.max(small['bboxes'], axis=0)[3] <= 96


def test_a_folder_with_broken_and_odd_files(exported, predict, shapes, tmp_path):
    """Unreadable files are reported, and all images are predicted, however narrow."""
    folder = tmp_path / 'images'
    folder.mkdir()
    source = next((shapes / 'coco/val2017').glob('*'))
    for name in ('whole.png', 'without_suffix'):
        (folder / name).write_bytes(source.read_bytes())
    (folder / 'cut.png').write_bytes(b'\x89PNG')
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'link.jpg').symlink_to('gone.jpg')
    (folder / 'notes.txt').write_text('no image')
    for name, shape in (('a_wide.png', (1, 300, 3)), ('high.png', (3000, 2, 3))):
        cv2.imwrite(str(folder / name), np.zeros(shape, np.uint8))
    out = tmp_path / 'results.json'
    printed = predict(exported('detector')[0], folder, '--out', out, fails=True)
    assert printed.count('opencv cannot read this file as an image') == 2
    line = next(line for line in printed.splitlines() if str(folder / 'link.jpg') in line)
    assert 'No such file' in line
    assert f'1 files in {folder} are left out' in printed
    assert '4 images, results in' in printed
    assert 'error: 3 of 7 images' in printed
    assert 'Traceback' not in printed
    assert str(folder / 'whole.png') in {each['image'] for each in json.loads(out.read_text())}


def test_results_that_cannot_be_written(tool, exported, predict, picture, tmp_path):
    printed = predict(exported('detector')[0], picture, '--out', tmp_path, fails=True)
    assert f'error: --out {tmp_path} cannot be written: Is a directory' in printed
    (tmp_path / 'y.png.png').mkdir()
    with pytest.raises(OSError, match='cannot be written'):
        tool.write_map(np.zeros((2, 2), np.int32), tmp_path / 'y.png.png')


def test_a_classifier_gets_no_padding(tool):
    """Padding changes the scores of a classifier; boxes and maps are cropped."""
    model = tool.Model.__new__(tool.Model)
    model.metadata = dict(task='classification', channels='RGB', mean=[0.0], std=[1.0])
    shape = SimpleNamespace(shape=[1, 3, 64, 64])
    model.session = SimpleNamespace(get_inputs=lambda: [shape])
    for size in ((32, 32), (64, 48), (96, 96)):
        with pytest.raises(ValueError, match='--shape'):
            model.normalise(np.zeros((*size, 3), np.uint8))
    assert model.normalise(np.zeros((64, 64, 3), np.uint8)).shape == (1, 3, 64, 64)
