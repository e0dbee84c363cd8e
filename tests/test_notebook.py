"""The notebook runs from its first cell to its last; `make demo` has its steps too."""

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_WAIT_POLICY', 'PASSIVE')
    notebook = nbformat.read(ROOT / 'notebooks/demo.ipynb', as_version=4)
    settings = next(cell for cell in notebook.cells if cell.cell_type == 'code')
    assert settings.source.startswith('SCENES, EPOCHS = ')
    settings.source = f'SCENES, EPOCHS = 16, 1\nFOLDER = {os.fspath(tmp_path)!r}'
    NotebookClient(
        notebook, timeout=600, resources=dict(metadata=dict(path=ROOT / 'notebooks'))
    ).execute()
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get('outputs', [])
        if output.output_type == 'execute_result' and any('image' in kind for kind in output.data)
    ]
    assert len(shown) == 4


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(ROOT / 'notebooks/demo.ipynb', as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get('outputs') for cell in notebook.cells)


def test_the_notebook_names_tools_that_exist():
    notebook = nbformat.read(ROOT / 'notebooks/demo.ipynb', as_version=4)
    source = '\n'.join(cell.source for cell in notebook.cells if cell.cell_type == 'code')
    tools = re.findall(r"\btool\(\s*'([^']+)'", source)
    assert len(tools) == 4
    assert [tool for tool in tools if not (ROOT / 'tools' / tool).is_file()] == []
