"""Checks before training that the label maps of mmseg have more than one label."""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from mmengine.config import Config

from ..config import ConfigView, are_in_hosts
from .heads import head_numbers
from .learnable import IGNORED, class_counts, unlearnable
from .left_out import build_dataset

# Label maps read at most. A good data set needs one or two.
_MOST = 1000


def label_map_problems(cfg: Config, splits: Sequence[str]) -> Iterator[str]:
    """Yield why nothing can be learned from the label maps of mmseg's training set.

    Label maps are read until two labels are found. Files that cannot be read, and larger data sets
    in which that takes too long, are left to `check_dataset`.

    Args:
        cfg: The whole config; nothing happens unless its host is mmseg.
        splits: The splits to check; only `train` is.
    """
    loader = cfg.get('train_dataloader')
    if cfg.get('default_scope') != 'mmseg' or 'train' not in splits or not loader:
        return
    counts: Counter[int] = Counter()
    read, partial = 0, False
    try:
        for found in ConfigView(cfg).datasets('train'):
            leaf = found.entry.settings
            if not are_in_hosts(found.steps):
                return  # A step of the user's own may change the labels.
            dataset = build_dataset('mmseg', leaf, pipeline=[], serialize_data=False)
            load = _loading_step(leaf['pipeline'])
            partial = partial or leaf.get('indices') is not None
            for index in range(len(dataset)):
                info = load(dataset.get_data_info(index))
                counts += class_counts(info, dataset.ignore_index)
                read += 1
                if len(counts.keys() - {IGNORED}) > 1 or read == _MOST:
                    return
        classes = len(dataset.metainfo.get('classes') or ())
        number = classes or max(each.classes for each in head_numbers(ConfigView(cfg)))
    except Exception:  # Whatever cannot be read is another check's.
        return
    yield from unlearnable('mmseg', 'train', counts, number, partial)


def _loading_step(pipeline: Sequence[Any]) -> Any:
    """Build the step of a pipeline that loads label maps."""
    registry = import_module('mmseg.registry').TRANSFORMS
    (step,) = (dict(each) for each in pipeline if each.get('type') == 'LoadAnnotations')
    step.pop('_scope_', None)
    return registry.get(step.pop('type'))(**step)
