"""The comparison's arguments and table; its trainings take hours."""

import json
import runpy
import subprocess
from types import SimpleNamespace

import pytest
from mmengine.runner import CheckpointLoader

from mmcloformer.apis.options import parse_options
from mmcloformer.errors import UserError
from tests.conftest import ROOT, TOOLS, load_tool

TOOL = SimpleNamespace(**runpy.run_path(str(TOOLS['compare_pretraining.py'])))


def test_starts_have_names():
    starts = TOOL.read_starts(['mmcloformer://a', 'mine=work_dirs/b.pth'])
    assert starts == {'random': None, 'a': 'mmcloformer://a', 'mine': 'work_dirs/b.pth'}
    assert TOOL.read_starts(['x=lr=0.1/c.pth'])['x'] == 'lr=0.1/c.pth'
    for bad in (['random=b.pth'], ['a.pth', 'x/a.pth'], ['a/b=c.pth'], ['=c.pth'], ['a=']):
        with pytest.raises(UserError, match='give another as NAME=CHECKPOINT'):
            TOOL.read_starts(bad)


def test_the_table_has_mean_and_spread_per_evaluation():
    runs = dict(
        random=[{5: 0.1, 10: 0.2}, {5: 0.3, 10: 0.4}], a=[{5: 0.5, 10: 0.6}, {5: 0.5, 10: 0.8}]
    )
    text = TOOL.table('mIoU', runs)
    assert '| iteration | random | a |\n|---|---|---|' in text
    assert '| 5 | 0.200 ± 0.141 | 0.500 ± 0.000 |' in text
    assert 'mIoU, mean and standard deviation over 2 seeds' in text
    assert 'a reaches the final 0.300 of random weights at iteration 5' in text
    alone = TOOL.table('mIoU', dict(random=[{5: 0.1}]))
    assert '0.100 ± 0.000' in alone
    assert 'reaches' not in alone


def test_an_evaluation_without_results_counts_as_zero():
    text = TOOL.table('coco/bbox_mAP', dict(random=[{10: 0.2}, {}], a=[{5: 0.1, 10: 0.2}] * 2))
    assert '| 5 | 0.000 ± 0.000 | 0.100 ± 0.000 |\n| 10 | 0.100 ± 0.141 | 0.200' in text
    assert 'a reaches the final 0.100 of random weights at iteration 5' in text


def test_a_start_with_fields_that_would_stay_is_refused(tool_error, tmp_path):
    template = ROOT / 'configs/cloformer_xxs_custom.py'
    config = tmp_path / 'config.py'
    out = ('--work-dir', tmp_path / 'new', '--out', tmp_path / 'out.json')
    for own in (dict(prefix='backbone.'), [dict(type='Kaiming')]):
        model = dict(backbone=dict(init_cfg=own))
        config.write_text(f"_base_ = '{template}'\nmodel = {model}\n")
        message = tool_error('compare_pretraining.py', config, *out)
        assert str(own).strip('{}') in message
    assert 'nosuch' in tool_error('compare_pretraining.py', template, 'nosuch.pth', *out)
    config.write_text("model = dict(backbone=dict(depth=18), init_cfg=dict(type='Pretrained'))")
    assert 'sets model.init_cfg' in tool_error('compare_pretraining.py', config, *out)
    config.write_text('model = None')
    assert 'no model.backbone' in tool_error('compare_pretraining.py', config, *out)
    # The templates name weights: the tool replaces these.
    assert '--seeds is 0' in tool_error('compare_pretraining.py', template, *out, '--seeds', 0)


def test_options_reach_the_training(tool_error, tmp_path, monkeypatch):
    commands = []

    def run(command):
        commands.append(command)
        return SimpleNamespace(returncode=len(commands) - 1)

    monkeypatch.setattr(subprocess, 'run', run)
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', lambda *args, **kwargs: {})
    names = load_tool('compare_pretraining.py')['main'].__globals__
    monkeypatch.setitem(names, 'read_curves', lambda _: ({}, {}))
    out = ('--work-dir', tmp_path / 'new', '--out', tmp_path / 'out.json')
    options = ('--cfg-options', 'a=1', 'b=2', '--cfg-options', 'c=3')
    checkpoint = """C:\\new, "it's" b=1.pth"""
    args = (ROOT / 'configs/cloformer_xxs_custom.py', f'x={checkpoint}', *out, *options)
    assert 'failed' in tool_error('compare_pretraining.py', *args)
    parsed = [parse_options(each[each.index('--cfg-options') + 1 :]) for each in commands]
    field = 'model.backbone.init_cfg'
    for each in parsed:
        # What load_from names would replace the weights that are compared.
        assert dict(a=1, b=2, c=3, load_from=None).items() <= each.items()
    assert [each.get(field, 'set') for each in parsed] == [None, 'set']
    assert parsed[1][f'{field}.checkpoint'] == checkpoint
    assert json.loads((tmp_path / 'out.json').read_text())['runs'] == dict(random=[{}], x=[])


@pytest.mark.parametrize('name', ['bccd', 'camvid'])
def test_the_page_has_the_tables_of_the_results(name):
    results = json.loads((ROOT / f'benchmarks/{name}.json').read_text())
    table = TOOL.table(results['metric'], results['runs'])
    assert table in (ROOT / 'docs/small-sets.md').read_text()
    assert all(len(runs) == 3 for runs in results['runs'].values())
