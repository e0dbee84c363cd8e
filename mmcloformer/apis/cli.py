"""Common options of the tools, and how they report errors and exit."""

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

from ..errors import UserError
from .options import OptionsAction


def base_parser(description: str) -> argparse.ArgumentParser:
    """Build a parser with the options that the hosts' own tools share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='launcher'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch')
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that overrides fields of the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        help='override config fields: key=value, nested as a.b.c=value, lists as key="[a,b]"; '
        'inner quotes protect commas: key="[\'a, b\',c]"',
    )


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add the option for inference in lower precision."""
    parser.add_argument(
        '--dtype',
        choices=['float32', 'bfloat16', 'float16'],
        default='float32',
        help='of the backbone; bfloat16 is faster on CPUs and GPUs with units for it, float16 on '
        'GPUs; both use the deploy form',
    )


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run a tool and exit with status 1 and one message, without a traceback, on a user's error.

    These are `UserError` and files that cannot be read or written. A process of a distributed
    run waits for the others before it exits.

    Args:
        main: The tool.
    """
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f'error: {error}. Free some space and run this again, training with --resume.')
        if error.filename is None:  # Not about a file: a bug, or the network.
            raise
        sys.exit(f'error: {error.strerror}: {error.filename}')
    if dist.is_initialized():
        exit_process_group()


def exit_process_group() -> NoReturn:
    """Wait for the other processes, then exit without destroying the group or Python's teardown.

    gloo's threads occasionally abort or hang during both. Threads are joined, and functions
    registered with atexit are called, as in a normal exit.
    """
    with suppress(RuntimeError):  # Another process has exited already.
        dist.barrier()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
