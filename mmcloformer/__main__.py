"""Run a script, such as a tool of a host, with mmcloformer imported first.

SCRIPT is the path of a Python file, or PACKAGE::TOOL for a tool that is installed with mmdet,
mmseg, mmpretrain or mmcloformer, such as mmdet::test.py or mmdet::analysis_tools/browse_dataset.py.
All following arguments are the script's.
"""

import argparse
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from .errors import UserError, join_first


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m mmcloformer',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('script', metavar='SCRIPT')
    parser.add_argument('args', nargs=argparse.REMAINDER, metavar='...')
    args = parser.parse_args()
    try:
        script = str(find_script(args.script))
        sys.argv = [script, *args.args]
        if not getattr(sys.flags, 'safe_path', False):  # As `python SCRIPT` does.
            sys.path[0] = str(Path(script).resolve().parent)
        runpy.run_path(script, run_name='__main__')
    except UserError as error:
        sys.exit(f'error: {error}')


def find_script(name: str) -> Path:
    """Return the file of a script.

    Args:
        name: A path, or `package::tool` for a file in the tools that mim finds in a package.

    Raises:
        UserError: If there is no such Python file.
    """
    package, separator, tool = name.rpartition('::')
    if not separator:
        path = Path(name)
        if path.suffix != '.py' or not path.is_file():
            raise UserError(f'{name} is not a Python file; give a path, or PACKAGE::TOOL')
        return path
    spec = find_spec(package) if package.isidentifier() else None
    folders = [
        Path(folder, '.mim', 'tools') for folder in (spec and spec.submodule_search_locations) or []
    ]
    tools = {
        path.relative_to(folder).as_posix(): path
        for folder in folders
        for path in sorted(folder.rglob('*.py'))
    }
    if not tools:
        raise UserError(f'{name}: no package {package} with tools (.mim/tools) is installed')
    if tool not in tools:
        similar = [f'{package}::{path}' for path in tools if path.endswith(f'/{tool}')]
        raise UserError(
            f'{package} has no tool {tool}; use '
            + (join_first(similar) if similar else f'one of {join_first(list(tools), 99)}')
        )
    return tools[tool]


if __name__ == '__main__':
    main()
