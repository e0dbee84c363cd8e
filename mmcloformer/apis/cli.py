"""Command lines of the tools: their common options, and how they report errors and exit."""

import argparse
import atexit
import errno
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import torch.distributed as dist
from mmengine.config import DictAction

from ..errors import UserError


def base_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options that mm users know from the hosts' own tools."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='launcher'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch')
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option by which fields of the config are overridden."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config fields: key=value, nested as a.b.c=value, lists as key="[a,b]"',
    )


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run a tool; print a `UserError`, or that a file cannot be read or written, as one message
    and exit with 1, without a traceback. Done, a process of several ends with all of them."""
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f'error: {error}. Make room and run this again, a training with --resume.')
        if error.filename is None:  # Not of a file: a bug, or the network.
            raise
        sys.exit(f'error: {error.strerror}: {error.filename}')
    if dist.is_initialized():
        _leave_group()


def _leave_group() -> NoReturn:
    """End this process, with all that Python does at its end but taking itself and the group
    apart: in that, and in destroying the group, threads of gloo's abort now and then."""
    with suppress(RuntimeError):  # Of one that has left already; the work is done.
        dist.barrier()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
