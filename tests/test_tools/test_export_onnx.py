"""Tests of the export tool."""

import json
import re

import onnx
import onnxruntime
import pytest
import torch

from mmcloformer.errors import UserError
from mmcloformer.export import ExportError
from mmcloformer.export.graphs import ClassifierGraph
from mmcloformer.export.onnx_file import OPSETS
from tests.test_export.tiny_models import config_of, tiny_model


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Write the config and the checkpoint of a small model of a kind."""
    folder = tmp_path_factory.mktemp('files')

    def write(kind):
        config, checkpoint = folder / f'{kind}.py', folder / f'{kind}.pth'
        if not config.exists():
            cfg = config_of(kind)
            cfg.dump(config)
            torch.save(tiny_model(cfg).state_dict(), checkpoint)
        return config, checkpoint

    return write


def metadata(path):
    properties = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in properties.items()}


def test_detector_of_fixed_size(files, tool_main, capsys, shapes, tmp_path):
    out = tmp_path / 'model.onnx'
    folder = shapes / 'coco/val2017'
    tool_main('export_onnx.py', *files('detector'), out, '--shape', 64, 96, '--verify', folder)
    printed = capsys.readouterr().out
    assert f'{out}: detection' in printed
    assert 'on 4 images' in printed
    for quantity in ('box, pixels', 'score'):
        assert float(re.search(rf'{quantity}: (\S+)', printed)[1]) < 1e-2
    about = metadata(out)
    assert about['classes'] == ['ring', 'square', 'star', 'triangle']
    assert about['steps'][0]['shape'] == [64, 96]
    assert about['config'] == 'detector.py'
    assert about['onnxruntime'] == '1.17'
    assert 'onnxruntime 1.17 or newer' in printed
    (images,) = onnxruntime.InferenceSession(out).get_inputs()
    assert images.shape == [1, 3, 64, 96]


@pytest.mark.parametrize('opset', OPSETS)
def test_opsets(files, tool_main, shapes, tmp_path, opset):
    out = tmp_path / 'model.onnx'
    tool_main(
        'export_onnx.py', *files('classifier'), out, '--shape', 64, 64, '--opset', opset,
        '--verify', shapes / 'coco/val2017',
    )  # fmt: skip
    model = onnx.load(out)
    assert [each.version for each in model.opset_import if not each.domain] == [opset]
    assert (model.ir_version, metadata(out)['onnxruntime']) == OPSETS[opset]


@pytest.mark.parametrize('scope', ['mmpose', 'mmyolo', None])
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


def test_disagreement_is_an_error(files, tool_main, capsys, shapes, tmp_path, monkeypatch):
    """The exported graph reverses the order of the classes."""
    forward = ClassifierGraph.forward
    monkeypatch.setattr(
        ClassifierGraph, 'forward', lambda self, images: forward(self, images).flip(1)
    )
    with pytest.raises(ExportError, match='onnxruntime disagrees with PyTorch on'):
        tool_main(
            'export_onnx.py', *files('classifier'), tmp_path / 'model.onnx', '--shape', 64, 64,
            '--verify', shapes / 'coco/val2017',
        )  # fmt: skip
    assert float(re.search(r'probability: (\S+)', capsys.readouterr().out)[1]) > 1e-3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--verify', 'tests'), '--verify tests contains no images'),
        (('--shape', 0, 64), r'--shape is 0 64; .* at least 1'),
    ],
)
def test_arguments_are_checked_before_the_export(files, tool_main, tmp_path, options, message):
    out = tmp_path / 'model.onnx'
    with pytest.raises(UserError, match=message):
        tool_main('export_onnx.py', *files('classifier'), out, *options)
    assert not out.exists()


def test_output_is_a_directory(files, tool_main, tmp_path):
    with pytest.raises(UserError, match='is a directory; give the name of the file to write'):
        tool_main('export_onnx.py', *files('classifier'), tmp_path)
