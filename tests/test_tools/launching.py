"""Start the shell tools, and write programs that take the place of those they start."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import ROOT, TOOLS

BIN = Path(sys.executable).parent


def start(script, *args, path=BIN, **env):
    """Start a shell tool as a user does; `path` is searched before the usual places."""
    log = tempfile.TemporaryFile('w+')  # noqa: SIM115  (read when the process ends)
    process = subprocess.Popen(
        [TOOLS[script], *map(str, args)],
        cwd=ROOT,
        env=os.environ
        | dict(PATH=f'{path}:{BIN}:{os.environ["PATH"]}', OMP_NUM_THREADS='1')
        | {key: str(value) for key, value in env.items()},
        stdout=log,
        stderr=log,
    )
    process.log = log
    return process


def finish(process, code=0):
    """Wait for a shell tool to end and return what it printed."""
    process.wait()
    process.log.seek(0)
    output = process.log.read()
    assert process.returncode == code, output[-5000:]
    return output


def launch(script, *args, **env):
    return finish(start(script, *args, **{'PORT': free_port(), **env}))


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def write_program(path, code):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!{sys.executable}\n{code}')
    path.chmod(0o755)


def recorder(folder, name):
    """Write a program that records its arguments and process id, and exits with status 3."""
    write_program(
        folder / name,
        'import json, os, pathlib, sys\n'
        'asked = dict(argv=sys.argv[1:], pid=os.getpid())\n'
        'pathlib.Path(__file__ + ".json").write_text(json.dumps(asked))\n'
        'sys.exit(3)\n',
    )


def asked(folder, name, script, *args, **env):
    """Return the arguments that a shell tool passes to the recorder, which it must `exec`."""
    process = start(script, *args, path=folder, **env)
    # The tool must become the program, so that signals and the exit status pass through.
    finish(process, code=3)
    record = json.loads((folder / f'{name}.json').read_text())
    assert record['pid'] == process.pid
    return record['argv']
