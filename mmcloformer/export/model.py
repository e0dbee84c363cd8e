"""From a config and a checkpoint to a host's model, and what the file says about it."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from ..apis.config import build_model, preprocessor_of
from ..checkpoint import check_whole_state, get_state_dict, read_checkpoint
from .graphs import ExportError, Graph

# What a step of a test pipeline may say, with the hosts' defaults.
_STEPS: dict[str, dict[str, Any]] = {
    'Resize': dict(scale=None, keep_ratio=False, interpolation='bilinear', backend='cv2'),
    'ResizeEdge': dict(scale=None, edge='short', interpolation='bilinear', backend='cv2'),
    'CenterCrop': dict(crop_size=None),
}


def load_model(cfg: Config, checkpoint: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a config's model in evaluation mode, with the weights of a checkpoint.

    Args:
        cfg: Config of any of the three hosts; its scope becomes the default.
        checkpoint: File of weights that fill the whole model.

    Returns:
        The model, and the names of its classes: those of the checkpoint's training data, else
        those of the config's test data.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not match.
    """
    model = build_model(cfg)
    loaded = read_checkpoint(checkpoint)
    weights = get_state_dict(loaded, checkpoint)
    check_whole_state(model, weights)
    model.load_state_dict(weights)
    meta = loaded.get('meta', {}).get('dataset_meta')
    if meta is None:
        import_module(f'{cfg.default_scope}.datasets')
        dataset = cfg.test_dataloader.dataset
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            meta = registry.get(dataset.type)._load_metainfo(dataset.get('metainfo'))
    return model.eval(), tuple(meta['classes'])


def describe(
    cfg: Config, graph: Graph, classes: tuple[str, ...], shape: tuple[int, int] | None
) -> dict[str, Any]:
    """Collect all that is needed beside the graph to get from an image file to its results.

    Args:
        cfg: The config of the model.
        graph: What is exported.
        classes: Names in the order of the labels.
        shape: Height and width of the input if they are fixed.

    Returns:
        `task`, `classes`; `channels` (their order), `mean` and `std` of the normalisation;
        `steps` that an image goes through before that, with the hosts' names and arguments, or
        `Fit`: as large as it fits into the fixed input, and zeros on the right and below after
        normalisation; `divisor`, to whose multiples the graph itself pads.

    Raises:
        ExportError: If the test pipeline has a step that changes the image in another way.
    """
    preprocessor = preprocessor_of(cfg)
    steps = _read_steps(cfg.test_dataloader.dataset.pipeline)
    if shape and graph.task != 'classification':
        steps = [dict(type='Fit', shape=shape, interpolation='bilinear', backend='cv2')]
    to_rgb = preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb')
    return dict(
        task=graph.task,
        classes=classes,
        channels='RGB' if to_rgb else 'BGR',
        mean=preprocessor.mean,
        std=preprocessor.std,
        steps=steps,
        divisor=preprocessor.get('pad_size_divisor', 1),
    )


def _read_steps(pipeline: Any) -> list[dict[str, Any]]:
    steps = []
    for step in pipeline:
        name = step.type.rpartition('.')[2]
        if not name.startswith(('Load', 'Pack')):
            steps.append(dict(type=name, **_read_step(name, step)))
    return steps


def _read_step(name: str, step: Mapping[str, Any]) -> dict[str, Any]:
    known = _STEPS.get(name, {})
    given = {key: value for key, value in step.items() if key != 'type'}
    settings = known | given
    if not known or given.keys() - known.keys() or None in settings.values():
        raise ExportError(
            f'the test pipeline has {dict(step)}, which an exported model cannot describe: it '
            f'knows {_STEPS}'
        )
    return settings
