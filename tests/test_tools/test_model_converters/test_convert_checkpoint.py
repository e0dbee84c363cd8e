import resource

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
