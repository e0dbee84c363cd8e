import pytest

from mmcloformer import errors
from mmcloformer.__main__ import find_script
from mmcloformer.errors import tool_command
from tests.conftest import ROOT

TOOLS = ['misc/check_dataset.py', 'train.py', 'dataset_converters/make_shapes.py']


@pytest.mark.parametrize('tool', TOOLS)
def test_the_command_of_a_tool_names_a_file_that_is_there(tool, tmp_path, monkeypatch):
    python, path = tool_command(tool).split()
    assert (python, ROOT / path) == ('python', ROOT / 'tools' / tool)
    monkeypatch.setattr(errors, '_ROOT', tmp_path)  # As in a wheel.
    *command, name = tool_command(tool).split()
    assert command == ['python', '-m', 'mmcloformer']
    assert find_script(name).read_bytes() == (ROOT / 'tools' / tool).read_bytes()
