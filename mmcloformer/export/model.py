"""Loading the model to export, and the metadata that describes it in the file."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from ..apis.config import build_model, image_color, preprocessor_of
from ..checkpoint import check_whole_state, get_state_dict
from ..config import ConfigView
from .graphs import ExportError, Graph

# Supported steps of a test pipeline: their arguments and the defaults; None is required.
_STEPS: dict[str, dict[str, Any]] = {
    'Resize': dict(scale=None, keep_ratio=False, interpolation='bilinear', backend='cv2'),
    'ResizeEdge': dict(scale=None, edge='short', interpolation='bilinear', backend='cv2'),
    'CenterCrop': dict(crop_size=None),
}


def load_model(cfg: Config, checkpoint: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the model of a config in evaluation mode and load a checkpoint.

    Args:
        cfg: Config for mmdet, mmseg or mmpretrain; its scope becomes the default scope.
        checkpoint: File, URL or `mmcloformer://NAME` with all weights of the model.

    Returns:
        The model and the names of its classes, which come from the checkpoint if it contains
        them, otherwise from the test data set of the config.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not match the model.
    """
    model = build_model(cfg)
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    weights = get_state_dict(loaded, checkpoint)
    check_whole_state(model, weights)
    model.load_state_dict(weights)
    meta = loaded.get('meta', {}).get('dataset_meta')
    if meta is None:
        dataset = next(ConfigView(cfg).datasets('test')).entry
        meta = dataset.kind._load_metainfo(dataset.settings.get('metainfo'))
    return model.eval(), tuple(meta['classes'])


def describe(
    cfg: Config, graph: Graph, classes: tuple[str, ...], shape: tuple[int, int] | None
) -> dict[str, Any]:
    """Return the metadata that is needed to preprocess images and to interpret the results.

    Args:
        cfg: Config of the model.
        graph: The graph that is exported.
        classes: Class names in the order of the labels.
        shape: Height and width of the input, or None if they are free.

    Returns:
        `task`; `classes`; `color_type`, how mmcv reads images (None with a loader of another kind);
        `channels`, the channel order; `mean` and `std` of the normalisation, 0 and 1 without;
        `steps`, the resizing and cropping before it, with the names and arguments of mmcv and
        mmpretrain, or `Fit`, which scales the image to fit into the fixed input and pads it with
        zeros on the right and at the bottom after normalisation; `divisor`, to a multiple of
        which the graph pads its input.

    Raises:
        ExportError: If the test pipeline changes the image in a step that is not supported.
    """
    preprocessor = preprocessor_of(cfg)
    steps = _read_steps(cfg.test_dataloader.dataset.pipeline)
    if shape and graph.task != 'classification':
        steps = [dict(type='Fit', shape=shape, interpolation='bilinear', backend='cv2')]
    to_rgb = preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb')
    color = image_color(cfg)
    has_color = graph.in_channels == 3 and not (color or '').startswith('grayscale')
    return dict(
        task=graph.task,
        classes=classes,
        color_type=color,
        # The hosts convert images of three channels only.
        channels='RGB' if to_rgb and has_color else 'BGR' if has_color else 'as loaded',
        mean=preprocessor.get('mean') or [0.0],
        std=preprocessor.get('std') or [1.0],
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
        supported = '; '.join(f'{kind}({", ".join(fields)})' for kind, fields in _STEPS.items())
        raise ExportError(
            f'the test pipeline contains {dict(step)}, which cannot be exported; supported are '
            f'{supported}'
        )
    return settings
