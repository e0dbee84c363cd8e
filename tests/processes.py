"""Real processes on this machine.

They are forks of a server that has imported the hosts and trained nothing: torch refuses a backward
pass in a fork of a process in which autograd has started threads, as some tests make it do.
"""

import torch
from torch import distributed, multiprocessing

from mmcloformer.apis.cli import exit_process_group

SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload(['tests.toy'])


def run_alone(function, *args):
    """Run `function(*args)` in a process; return its exit code, or minus the signal that ended it.

    Args:
        function: A function of a module.
        *args: What can be pickled.
    """
    process = SERVER.Process(target=_run_with_one_thread, args=(function, *args))
    process.start()
    process.join(60)
    return process.exitcode


def run_in_group(function, store, *args, size=2):
    """Run `function(rank, *args)` in processes that form a group of gloo.

    Args:
        function: A function of a module.
        store: A file that does not exist.
        *args: What can be pickled.
        size: Number of processes.
    """
    multiprocessing.start_processes(
        _join, (function, store, size, args), nprocs=size, start_method='forkserver'
    )


def _run_with_one_thread(function, *args):
    torch.set_num_threads(1)
    function(*args)


def _join(rank, function, store, size, args):
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=size
    )
    function(rank, *args)
    exit_process_group()
