"""What README and docs/ tell people to type and to open is there."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
PAGE = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
# Where the options of the scripts that hand them on are defined.
PARSERS = {'dist_train.sh': 'train.py', 'dist_test.sh': 'test.py'}
PARSERS |= {'slurm_train.sh': 'train.py', 'slurm_test.sh': 'test.py'}


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's ```bash blocks, as words."""
    blocks = re.findall(r'^```bash\n(.*?)^```', page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace('\\\n', ' ').splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@PAGE
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)#]+)[^)]*\)', page.read_text()):
        if '://' not in target:
            assert (page.parent / target).exists(), target


@PAGE
def test_commands_name_files_that_exist(page):
    for words in commands(page):
        named = [word for word in words if re.match(r'(tools|configs)/[^*{]*$', word)]
        assert [word for word in named if not (ROOT / word).is_file()] == []
        if words[0] == 'make':
            assert f'\n{words[1]}:' in (ROOT / 'Makefile').read_text()


@PAGE
def test_options_are_those_of_the_tools(page):
    shared = (ROOT / 'mmcloformer/launch.py').read_text()
    for words in commands(page):
        tools = [word.removeprefix('tools/') for word in words if word.startswith('tools/')]
        if tools:
            parser = (ROOT / 'tools' / PARSERS.get(tools[0], tools[0])).read_text()
            options = {word.partition('=')[0] for word in words if word.startswith('--')}
            assert {o for o in options if f"'{o}'" not in parser + shared} == set(), words
