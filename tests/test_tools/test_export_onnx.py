"""The export as a user runs it."""

import json
import re

import onnx
import onnxruntime
import pytest
import torch

from tests.test_export.conftest import NAMES, tiny_config, tiny_model


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A config and a checkpoint of a small classifier, segmentor or detector."""
    folder = tmp_path_factory.mktemp('files')

    def write(kind):
        config, checkpoint = folder / f'{kind}.py', folder / f'{kind}.pth'
        if not config.exists():
            cfg = tiny_config(NAMES[kind])
            cfg.dump(config)
            torch.save(tiny_model(cfg, NAMES[kind].partition('_')[0]).state_dict(), checkpoint)
        return config, checkpoint

    return write


def metadata(path):
    properties = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in properties.items()}


def test_a_detector_of_fixed_size(files, run_tool, shapes, tmp_path):
    out = tmp_path / 'model.onnx'
    folder = shapes / 'coco/val2017'
    printed = run_tool(
        'export_onnx.py', *files('detector'), out, '--shape', 64, 96, '--verify', folder
    )
    assert f'{out}: detection' in printed
    assert 'on 4 images' in printed
    for quantity in ('box, pixels', 'score'):
        assert float(re.search(rf'{quantity}: (\S+)', printed)[1]) < 1e-2
    about = metadata(out)
    assert about['classes'] == ['ring', 'square', 'star', 'triangle']
    assert about['steps'][0]['shape'] == [64, 96]
    assert about['config'] == 'detector.py'
    (images,) = onnxruntime.InferenceSession(out).get_inputs()
    assert images.shape == [1, 3, 64, 96]


@pytest.mark.slow
def test_half_precision(files, run_tool, tmp_path):
    out = tmp_path / 'model.onnx'
    printed = run_tool(
        'export_onnx.py', *files('classifier'), out, '--shape', 64, 64, '--fp16', cwd=tmp_path
    )
    # Without the demo's scenes it draws some.
    assert 'on 8 images' in printed
    assert 0 < float(re.search(r'probability: (\S+)', printed)[1]) < 3e-2
    weights = [weight for weight in onnx.load(out).graph.initializer if len(weight.dims) == 4]
    assert {weight.data_type for weight in weights} == {onnx.TensorProto.FLOAT16}
    session = onnxruntime.InferenceSession(out)
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == 'tensor(float)'


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['segmentor', 'upernet', 'mask-rcnn'])
def test_the_others_at_any_size(files, run_tool, real_data, tmp_path, kind):
    folder = real_data / 'fruits_nuts/images'
    out = tmp_path / 'model.onnx'
    printed = run_tool(
        'export_onnx.py', *files(kind), out, '--shape', 256, 320, '--dynamic', '--verify', folder
    )
    assert 'on 8 images' in printed
    shape = onnxruntime.InferenceSession(out).get_inputs()[0].shape
    assert not any(isinstance(side, int) for side in shape[2:])


def test_disagreement_is_an_error(files, run_tool, shapes, tmp_path, monkeypatch):
    """A graph that is not of the model that it is compared with."""
    config, checkpoint = files('classifier')
    (tmp_path / 'swap_classes.py').write_text(
        'from mmcloformer.export.classifier import ClassifierGraph\n'
        'plain = ClassifierGraph.forward\n'
        'ClassifierGraph.forward = lambda self, images: plain(self, images).flip(1)\n'
    )
    broken = tmp_path / 'broken.py'
    broken.write_text(
        f'_base_ = {str(config)!r}\n'
        "custom_imports = dict(imports=['mmcloformer', 'swap_classes'])\n"
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    printed = run_tool(
        'export_onnx.py', broken, checkpoint, tmp_path / 'model.onnx', '--shape', 64, 64,
        '--verify', shapes / 'coco/val2017', code=1,
    )  # fmt: skip
    assert 'error: onnxruntime disagrees with PyTorch on' in printed
    assert float(re.search(r'probability: (\S+)', printed)[1]) > 1e-3


def test_no_images_are_said_before_the_work(files, run_tool, tmp_path):
    out = tmp_path / 'model.onnx'
    printed = run_tool(
        'export_onnx.py', *files('classifier'), out, '--verify', tmp_path / 'none', code=1
    )
    assert 'error: no image to compare on' in printed
    assert not out.exists()
