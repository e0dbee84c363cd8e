"""The benchmark on small images, with each model run a few times only."""

import json
import sys

import pytest
import torch

from benchmarks import frontier, models, suite
from benchmarks import measure as measuring
from mmcloformer.models.deploy import cpu_has_bfloat16
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """No repetitions of a short step, and a small product of matrices."""
    monkeypatch.setattr(measuring, 'TURN', 0)
    monkeypatch.setattr(measuring, 'MATMUL_SIDE', 64)


def measure(tool_main, folder, *args):
    out = folder / 'results.json'
    printed = tool_main('benchmark.py', '--arch', 'xxs', '--rounds', 2, '--out', out, *args)
    return json.loads(out.read_text()), printed


def test_backbones(tool_main, tmp_path):
    models = ('literal', 'training form', 'deploy form', 'PVTv2-B0', 'EfficientFormer-L1')
    results, printed = measure(tool_main, tmp_path, '--sizes', 64, '64x96', '--models', *models)

    assert results['threads'] >= 1
    assert results['matmul_gflops'] > 0
    assert results['versions']['torch']
    rows = {(row['model'], row['size'], row['mode']): row for row in results['rows']}
    # The deploy form does not train; EfficientFormer takes no other size than 224x224.
    assert len(rows) == 2 * (5 + 4)
    for (model, _, _), row in rows.items():
        assert ('error' in row) == (model == 'EfficientFormer-L1')
        if 'error' not in row:
            assert row['fastest_ms'] <= row['median_ms']
    for mode in ('inference', 'training'):
        base, ours = rows['literal', '64x64', mode], rows['training form', '64x64', mode]
        assert f'| {base["median_ms"] / ours["median_ms"]:.2f} |' in printed


def test_models_of_timm_are_built_for_training_as_timm_does(tool_main, tmp_path, monkeypatch):
    built = []

    def build(name, deploy=True):
        built.append((name, deploy))
        return torch.nn.Identity()

    monkeypatch.setattr(frontier, 'build_pyramid', build)
    monkeypatch.setattr(models, 'onnxruntime_step', lambda model, setting: lambda: None)
    names = ('RepViT-M1.0', 'RepViT-M1.0, onnxruntime')
    results, _ = measure(tool_main, tmp_path, '--sizes', 32, '--models', *names)
    assert built == [(names[0], True)] * 2 + [(names[0], False)] * 2
    exported = [row['mode'] for row in results['rows'] if row['model'] == names[1]]
    assert exported == ['inference']


def test_a_package_that_is_not_installed(tool_main, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    results, _ = measure(tool_main, tmp_path, '--sizes', 32, '--models', 'literal', 'RepViT-M1.0')
    assert 'timm' in next(row['error'] for row in results['rows'] if row['model'] == 'RepViT-M1.0')


def test_config_files_of_one_name_have_different_rows():
    assert list(suite._labels(('a/m.py', 'b/m.py', 'mmdet::c/n.py', 'literal')).values()) == [
        'a/m.py',
        'b/m.py',
        'n',
        'literal',
    ]


def test_a_size_that_a_model_does_not_take(tool_main, tmp_path):
    models = ('literal', 'deploy form', 'PVTv2-B0')
    results, printed = measure(tool_main, tmp_path, '--sizes', 32, '--models', *models)
    failed = {(row['model'], row['mode']) for row in results['rows'] if 'error' in row}
    assert failed == {('literal', 'training')}  # A BatchNorm of one pixel.
    assert len(results['rows']) == 5
    assert '| literal | Expected more than 1 value per channel' in printed


@pytest.mark.slow
def test_onnxruntime(tool_main, tmp_path):
    options = ('--sizes', 64, '--batches', 1, 2, '--models', 'literal', 'onnxruntime')
    results, printed = measure(tool_main, tmp_path, *options)
    rows = [row for row in results['rows'] if row['model'] == 'onnxruntime']
    assert [(row['mode'], row['batch']) for row in rows] == [('inference', 1), ('inference', 2)]
    assert all(row['median_ms'] > 0 and row['peak_mb'] is None for row in rows)
    assert '| onnxruntime | ' in printed
    assert results['versions']['onnxruntime']


def test_whole_models(tool_main, tmp_path):
    names = ('retinanet_cloformer_xxs_coco', 'cloformer_xxs_imagenet')
    paths = [ROOT / 'configs' / f'{name}.py' for name in names]
    results, printed = measure(tool_main, tmp_path, '--sizes', 64, '--models', *paths)
    found = {(row['model'], row['mode']) for row in results['rows']}
    assert found == {(name, mode) for name in names for mode in ('inference', 'training')}
    assert all(row['median_ms'] > 0 for row in results['rows'])
    assert all(name in printed for name in names)


@pytest.mark.slow
def test_the_frontier_is_drawn(tool_main, tmp_path, monkeypatch):
    few = {name: frontier.PEERS[name] for name in ('CloFormer-XXS', 'MobileNetV4-S')}
    for name in set(frontier.PEERS) - set(few):
        monkeypatch.delitem(frontier.PEERS, name)
    plot = tmp_path / 'frontier.png'
    results, printed = measure(tool_main, tmp_path, '--frontier', plot)
    assert len(results['rows']) == 6
    assert all(row['median_ms'] > 0 for row in results['rows'])
    assert '| MobileNetV4-S | 73.8 |' in printed
    assert plot.exists()


@pytest.mark.skipif(not cpu_has_bfloat16(), reason='the CPU has no units for bfloat16')
def test_bfloat16(tool_main, tmp_path):
    name = 'deploy form, bfloat16'
    results, _ = measure(tool_main, tmp_path, '--sizes', 64, '--models', 'literal', name)
    modes = [row['mode'] for row in results['rows'] if row['model'] == name]
    assert modes == ['inference']


def test_growth_is_drawn(tool_main, tmp_path):
    plot = tmp_path / 'growth.png'
    results, _ = measure(tool_main, tmp_path, '--sizes', 32, 64, '--growth', plot)
    assert {row['model'] for row in results['rows']} == {'literal', 'deploy form'}
    assert {row['mode'] for row in results['rows']} == {'inference'}
    assert plot.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        pytest.param(
            ['--device', 'cuda'],
            'finds no GPU',
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is one'),
        ),
        (['--growth', 'plot.xyz'], 'plot.xyz must have the ending of an image'),
        (['--models', 'nosuch'], 'error: config nosuch does not exist'),
        (['--frontier', 'plot.png', '--models', 'literal'], '--models'),
        (['--frontier', 'plot.png', '--sizes', 64], '--sizes'),
        (['--frontier', 'plot.png', '--batches', 2], '--batches'),
    ],
)
def test_options_that_do_not_apply_are_refused(tool_error, tmp_path, options, said):
    assert said in tool_error('benchmark.py', *options, '--out', tmp_path / 'x.json')


def test_the_default_file_is_for_the_whole_comparison(tool_error):
    for options in (['--models', 'literal'], ['--sizes', 64], ['--arch', 's']):
        assert '--out is needed' in tool_error('benchmark.py', *options)


@pytest.mark.parametrize('options', [['--rounds', 0], ['--sizes', '64x-1'], ['--batches', 0]])
def test_numbers_are_positive(tool_main, options, capsys):
    with pytest.raises(SystemExit, match='2'):
        tool_main('benchmark.py', *options)
    assert f'argument {options[0]}: invalid' in capsys.readouterr().err
