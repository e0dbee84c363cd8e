import errno
import resource
from pathlib import Path

import pytest
import torch

from mmcloformer.errors import UserError
from tests import released


@pytest.fixture
def source(tmp_path):
    file = tmp_path / 'released.pth'
    torch.save({'model': released.state_dict('xxs')}, file)
    return file


def test_a_conversion_on_a_full_disk_leaves_nothing(tool_main, source, tmp_path):
    target = tmp_path / 'out' / 'converted.pth'
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(UserError, match=f'{target} cannot be written: File too large'):
            tool_main('convert_checkpoint.py', source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize('target', ['{source}/out.pth', '/proc/out.pth'])
def test_a_place_that_cannot_be_written_is_said(tool_main, source, target):
    target = target.format(source=source)
    with pytest.raises(UserError, match=f'{target} cannot be written'):
        tool_main('convert_checkpoint.py', source, target)


def test_a_source_that_cannot_be_opened_is_not_taken_for_the_target(
    tool_main, source, tmp_path, monkeypatch
):
    def refuse(path, *args):
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    monkeypatch.setattr(Path, 'open', refuse)
    with pytest.raises(PermissionError, match=source.name):
        tool_main('convert_checkpoint.py', source, tmp_path / 'new' / 'out.pth')
    assert not (tmp_path / 'new').exists()


class CfgNode(dict):
    """As yacs's, which need not be installed."""


def released_file(path, **content):
    """As the released code saves it: the config is an object."""
    extra = dict(optimizer=dict(state={}), max_accuracy=80.0, scaler={}, epoch=3)
    torch.save({**content, **extra, 'config': CfgNode(MODEL=CfgNode(NAME='xxs'))}, path)
    return path


@pytest.fixture(scope='module')
def weights():
    """Two state dicts, of which one is zero."""
    state_dict = released.state_dict('xxs')
    return dict(state_dict=state_dict, zeros={k: v * 0 for k, v in state_dict.items()})


@pytest.mark.parametrize('ema', ['model_ema', 'state_dict_ema'])
@pytest.mark.parametrize(
    ('names', 'options', 'taken'),
    [
        (['model'], [], 'model'),
        (['model', 'EMA'], [], 'model'),
        (['EMA'], [], 'EMA'),
        (['model', 'EMA'], ['--key', 'EMA'], 'EMA'),
        (['EMA', 'model'], ['--key', 'model'], 'model'),
    ],
)
def test_a_file_of_the_released_code(
    tool_main, weights, tmp_path, capfd, ema, names, options, taken
):
    names = [name.replace('EMA', ema) for name in names]
    taken = taken.replace('EMA', ema)
    content = {name: weights['state_dict' if name == taken else 'zeros'] for name in names}
    source = released_file(tmp_path / 'ckpt_epoch_3.pth', **content)
    options = [option.replace('EMA', ema) for option in options]
    output = tool_main('convert_checkpoint.py', source, tmp_path / 'out.pth', *options)
    assert f'the weights under {taken!r}' in output
    converted = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    assert torch.equal(converted['backbone.norm3.weight'], weights['state_dict']['norm.weight'])


@pytest.mark.parametrize('key', ['ema', 'config', 'epoch', 'optimizer'])
def test_a_key_without_weights_is_refused(tool_main, weights, tmp_path, key):
    source = released_file(tmp_path / 'file.pth', model=weights['state_dict'])
    expected = rf'{source} has no key .*: model, optimizer' if key == 'ema' else f'under {key!r}'
    with pytest.raises(UserError, match=expected):
        tool_main('convert_checkpoint.py', source, tmp_path / 'out.pth', '--key', key)
