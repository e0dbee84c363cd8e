"""The rules of docs/code.md, checked on the imports that stand in the source."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT


def module_name(path: Path) -> str:
    """Return the dotted name of a file below the repository root; a package has its folder's."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {
    module_name(path): path
    for folder in ('mmcloformer', 'tools', 'benchmarks', 'tests')
    for path in sorted((ROOT / folder).rglob('*.py'))
    if '.mim' not in path.parts  # links to configs/ and tools/
}


def imports(name: str) -> Iterator[str]:
    """Yield the repository's modules that a module imports, inside functions too."""
    path = FILES[name]
    package = name.split('.') if path.name == '__init__.py' else name.split('.')[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            module = '.'.join([*start, *([node.module] if node.module else [])])
            submodules = [f'{module}.{alias.name}' for alias in node.names]
            # `from package import name`: the name is a module, or something that the package has.
            targets = [target if target in FILES else module for target in submodules]
        else:
            continue
        yield from (target for target in targets if target in FILES)


GRAPH = {name: set(imports(name)) for name in FILES}


def part(name: str) -> str:
    """Return the folder or module directly below the package that a module belongs to."""
    return name.split('.')[1] if '.' in name else '__init__'


PARTS: dict[str, set[str]] = {}
for importer, targets in GRAPH.items():
    if importer.split('.')[0] == 'mmcloformer':
        found = PARTS.setdefault(part(importer), set())
        found |= {part(target) for target in targets} - {part(importer)}


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the nodes of a circle; an empty list if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_the_parser_sees_every_form_of_import(tmp_path, monkeypatch):
    package = tmp_path / 'mmcloformer/part'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('from .file import name\n')
    (package / 'file.py').write_text(
        'import mmcloformer.errors\nfrom .. import models\nfrom ..models import CloFormer\n'
        'def function():\n    from ..checkpoint.files import read_checkpoint\n    import torch\n'
    )
    monkeypatch.setitem(FILES, 'mmcloformer.part', package / '__init__.py')
    monkeypatch.setitem(FILES, 'mmcloformer.part.file', package / 'file.py')
    assert set(imports('mmcloformer.part')) == {'mmcloformer.part.file'}
    assert set(imports('mmcloformer.part.file')) == {
        'mmcloformer.errors',
        'mmcloformer.models',
        'mmcloformer.checkpoint.files',
    }


def test_no_files_import_each_other_in_a_circle():
    assert find_circle(GRAPH) == []


def test_no_parts_import_each_other_in_a_circle():
    assert find_circle(PARTS) == []


def test_a_circle_is_found():
    assert set(find_circle({'a': {'b'}, 'b': {'c'}, 'c': {'a'}, 'd': {'a'}})) == {'a', 'b', 'c'}


def test_the_network_needs_no_other_part():
    assert PARTS['models'] <= {'errors', 'checkpoint'}


HOSTS = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torch')


def changes_of_hosts(source: str) -> Iterator[str]:
    """Yield the statements that assign to a host's module or class, or register over its own."""
    tree = ast.parse(source)
    imported = {
        (alias.asname or alias.name).split('.')[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if (getattr(node, 'module', None) or alias.name).split('.')[0] in HOSTS
    }
    for node in ast.walk(tree):
        changed = []
        if isinstance(node, ast.Assign):
            changed = node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            changed = [node.target]
        elif isinstance(node, ast.Delete):
            changed = node.targets
        elif isinstance(node, ast.Call):
            name = getattr(node.func, 'id', getattr(node.func, 'attr', ''))
            if name in ('setattr', 'delattr', 'register_scheme', 'register_backend'):
                changed = [node.func, *node.args[:1]]
        for target in changed:
            plain = isinstance(target, ast.Name) and not isinstance(node, ast.Call)
            while isinstance(target, (ast.Attribute, ast.Subscript)):
                target = target.value
            if not plain and isinstance(target, ast.Name) and target.id in imported:
                yield f'line {node.lineno}: {ast.unparse(node)}'


def test_only_compat_changes_a_host():
    assert {
        name: found
        for name in FILES
        if name.startswith('mmcloformer.') and part(name) != 'compat'
        if (found := list(changes_of_hosts(FILES[name].read_text())))
    } == {}


@pytest.mark.parametrize(
    'statement',
    [
        'hub.MODULE2PACKAGE["a"] = 1',
        'hub.get_config = f',
        'setattr(hub, "get_config", f)',
        'Loader.register_scheme("a://", f, force=True)',
        'del Loader.schemes["a"]',
        'backends["a"] += 1',
    ],
)
def test_a_change_of_a_host_is_found(statement):
    imports = 'from mmengine.hub import hub, backends\nfrom mmengine.runner import Loader\n'
    assert list(changes_of_hosts(imports + statement))
    assert not list(changes_of_hosts(imports + 'own = hub.a\nown["a"] = 1\nhub = None\n'))


def test_the_map_draws_the_imports_between_parts():
    """On failure, the expected rows are those to write into the table of docs/code.md."""
    found = {
        f'| `{name}` | {", ".join(f"`{other}`" for other in sorted(used)) or "-"} |'
        for name, used in PARTS.items()
    }
    page = (ROOT / 'docs/code.md').read_text()
    drawn = {*re.findall(r'^\| `\w+` \| [\w`, -]* \|$', page, re.MULTILINE)}
    assert drawn == found


@pytest.mark.parametrize(
    ('folder', 'allowed'),
    [
        ('mmcloformer', {'mmcloformer'}),
        ('benchmarks', {'mmcloformer', 'benchmarks'}),
        ('tools', {'mmcloformer', 'benchmarks', 'tools'}),
    ],
)
def test_a_folder_imports_only_these(folder, allowed):
    assert [
        (name, target)
        for name, targets in GRAPH.items()
        for target in targets
        if name.split('.')[0] == folder and target.split('.')[0] not in allowed
    ] == []


def test_no_test_module_is_imported():
    assert [
        (name, target)
        for name, targets in GRAPH.items()
        for target in targets
        if target.split('.')[-1].startswith('test_') and target.split('.')[0] == 'tests'
    ] == []
