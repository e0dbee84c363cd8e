"""The snippets of docs/api.md run in their order."""

import re

import pytest
import torch
from mmengine.registry import DefaultScope

from mmcloformer.errors import ConfigError
from tests.conftest import ROOT

SNIPPETS = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/api.md').read_text(), re.S)


def test_the_snippets_run(monkeypatch, tmp_path, capsys):
    pytest.importorskip('skimage')  # Comes with the maintained fork only.
    for folder in ('configs', 'hubconf.py', 'mmcloformer'):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DefaultScope, '_instance_dict', {})  # As in a new process.
    names = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, 'docs/api.md', 'exec'), names)
    assert names['same'].out_channels == names['backbone'].out_channels[1:]
    assert names['labels'].shape == (400, 600)
    assert 'espresso' in capsys.readouterr().out


def test_hub_says_which_have_weights():
    with pytest.raises(ConfigError, match='no weights for cloformer_s, only for cloformer_xxs'):
        torch.hub.load(str(ROOT), 'cloformer_s', source='local', pretrained=True)
