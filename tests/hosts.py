"""What makes many tests of the hosts in one process fast, and independent of each other."""

import copy
import functools
import gc
import site
from collections.abc import Callable
from typing import Any

import mmengine.config.config
import mmengine.config.utils
from mmengine.config import Config
from mmengine.utils import ManagerMixin
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from yapf.yapflib import yapf_api


def shorten_config_handling() -> None:
    """Read the hosts' config files once per process, and write configs without formatting them.

    For every `_base_ = 'mmseg::...'` mmengine reads all of that host's 60 YAML files, in 0.3 s.
    Each Runner formats its config four times, in 0.4 s each.
    """
    yapf_api.FormatCode = lambda code, **settings: (code, True)
    mmengine.config.config.FormatCode = yapf_api.FormatCode  # where upstream has imported it
    mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)
    Config._file2dict = staticmethod(_cache_host_files(Config._file2dict))


def _cache_host_files(read: Callable[..., Any]) -> Callable[..., Any]:
    installed = tuple(site.getsitepackages())
    cached = functools.cache(read)

    def read_config(filename: str, *args: Any, **kwargs: Any) -> Any:
        if str(filename).startswith(installed):
            return copy.deepcopy(cached(filename, *args, **kwargs))
        return read(filename, *args, **kwargs)

    return read_config


def end_workers() -> None:
    """End the worker processes of all loaders, and collect what holds them.

    When the collector did that at a time of its own, Python's parser raised "AST constructor
    recursion depth mismatch". When it frees a loader's queues first, each worker is waited for in
    vain for five seconds.
    """
    for each in gc.get_objects():
        if type(each) is _MultiProcessingDataLoaderIter:
            each._shutdown_workers()
    gc.collect()


def forget_instances() -> None:
    """Remove mmengine's loggers, visualizers, message hubs and default scopes of earlier runs.

    A later run in this process would get them by their names: a visualizer that writes into the
    folder of an earlier run, a logger whose level was changed.
    """
    kinds = [ManagerMixin]
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()
