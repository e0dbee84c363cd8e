"""Real processes of a gloo group on this machine."""

import torch
from torch import distributed, multiprocessing

from mmcloformer.apis.cli import exit_process_group


def run_in_group(function, store, *args, size=2):
    """Run `function(rank, *args)` in forks of this process, which form a group.

    Args:
        function: What each process does.
        store: A file that does not exist.
        *args: Further arguments.
        size: Number of processes.
    """
    multiprocessing.start_processes(
        _join, (function, store, size, args), nprocs=size, start_method='fork'
    )


def _join(rank, function, store, size, args):
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=size
    )
    function(rank, *args)
    exit_process_group()
