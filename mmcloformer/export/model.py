"""The metadata that describes a model in its file."""

from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config

from ..apis.config import inference_steps
from ..config import ConfigView, Entry, is_in_hosts
from .graphs import ClassifierGraph, ExportError, Graph

# Supported steps of a test pipeline: their arguments and the defaults; None is required.
_STEPS: dict[str, dict[str, Any]] = {
    'Resize': dict(scale=None, keep_ratio=False, interpolation='bilinear', backend='cv2'),
    'ResizeEdge': dict(scale=None, edge='short', interpolation='bilinear', backend='cv2'),
    'CenterCrop': dict(crop_size=None),
}


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
        `task`; `classes`; `multi_label`, the `thr` or `topk` of a multi-label head; `color_type`,
        how mmcv reads images (None with another loader or `to_float32`); `channels`, their order;
        `mean` and `std` of the normalisation, 0 and 1 without; `steps`, the resizing and cropping
        before it, with the names and arguments of mmcv and mmpretrain, or `Fit`, which scales the
        image to fit into the fixed input and pads it with zeros on the right and at the bottom
        after normalisation.

    Raises:
        ExportError: If the test pipeline changes the image in a step that is not supported.
    """
    preprocessor = ConfigView(cfg).preprocessor().settings
    load, *others = inference_steps(cfg)
    steps = [_read_step(step) for step in others[:-1]]  # The last one packs the results.
    if shape and graph.task != 'classification':
        resize = next((step for step in steps if step['type'] == 'Resize'), _STEPS['Resize'])
        makes_shape = tuple(np.ravel(resize['scale'])) == shape[::-1] and not resize['keep_ratio']
        if len(steps) != 1 or not makes_shape:
            fields = {name: resize[name] for name in ('interpolation', 'backend')}
            steps = [dict(type='Fit', shape=shape, **fields)]
    # mmcv loads BGR, and each of these reverses the channels.
    to_rgb = any(preprocessor.get(name) for name in ('bgr_to_rgb', 'to_rgb', 'rgb_to_bgr'))
    color = color_type(load)
    has_color = graph.in_channels == 3 and not (color or '').startswith('grayscale')
    return dict(
        task=graph.task,
        classes=classes,
        multi_label=graph.multi_label if isinstance(graph, ClassifierGraph) else None,
        color_type=color,
        # The hosts convert images of three channels only.
        channels='RGB' if to_rgb and has_color else 'BGR' if has_color else 'as loaded',
        mean=preprocessor.get('mean') or [0.0],
        std=preprocessor.get('std') or [1.0],
        steps=steps,
    )


def color_type(step: Entry) -> str | None:
    """Return how a step loads images, a name that mmcv knows.

    Args:
        step: The first step of a pipeline.

    Returns:
        None if the step is not mmcv's `LoadImageFromFile` with OpenCV or Pillow, or it converts to
        float32, after which resizing does not round.
    """
    backend = step.settings.get('imdecode_backend', 'cv2')
    if step.kind is not LoadImageFromFile or backend not in ('cv2', 'pillow'):
        return None
    if step.settings.get('to_float32'):
        return None
    return str(step.settings.get('color_type', 'color'))


def _read_step(step: Entry) -> dict[str, Any]:
    name = getattr(step.kind, '__name__', '')
    known = _STEPS.get(name, {}) if is_in_hosts(step.kind) else {}
    given = {key: value for key, value in step.settings.items() if key != 'type'}
    settings = known | given
    if not known or given.keys() - known.keys() or None in settings.values():
        supported = '; '.join(f'{kind}({", ".join(fields)})' for kind, fields in _STEPS.items())
        raise ExportError(
            f'{step.field} is {dict(step.settings)}, which cannot be exported; supported are '
            f'{supported}'
        )
    return dict(type=name, **settings)
