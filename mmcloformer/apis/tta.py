"""Test-time augmentation with the hosts' own models and pipelines."""

import inspect
from importlib import import_module
from typing import Any

import mmcv
from mmcv.transforms import BaseTransform
from mmengine.config import Config, ConfigDict
from mmengine.registry import TRANSFORMS

from ..config import ConfigView
from ..errors import ConfigError

_MODELS = dict(mmdet='DetTTAModel', mmseg='SegTTAModel', mmpretrain='AverageClsScoreTTA')
_BOXES = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)


@TRANSFORMS.register_module()
class MirrorImage(BaseTransform):
    """Flip the image horizontally, or not, and leave its annotations as they are.

    The hosts' `RandomFlip` flips annotations too, with which the predictions are compared after
    they have been flipped back.

    Args:
        flip: Whether to flip.
    """

    def __init__(self, flip: bool) -> None:
        self.flip = flip

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Flip the image and set the keys that the hosts' models read."""
        if self.flip:
            # Of an image of one column, packing would keep the negative stride.
            results['img'] = mmcv.imflip(results['img']).copy()
        results.update(flip=self.flip, flip_direction='horizontal' if self.flip else None)
        return results


def augment_test(cfg: Config) -> None:
    """Test on several versions of every image and merge the predictions, as the hosts' tools do.

    The config's `tta_model` and `tta_pipeline` are used. Without a `tta_pipeline`, the versions are
    the image and its mirror image.

    Args:
        cfg: Config of a test, changed in place.

    Raises:
        ConfigError: If the config is of no host, or the test needs more than boxes of mmdet's
            `DetTTAModel`, such as masks or tracks.
    """
    view = ConfigView(cfg)
    host = view.require_host()
    kind = getattr(import_module(f'{host}.models'), _MODELS[host])
    model = cfg.get('tta_model') or ConfigDict(type=f'{kind.__module__}.{kind.__name__}')
    if host == 'mmdet' and view.entry(model, 'tta_model', 'MODELS').is_a(kind):
        _require_boxes(view)
        model.setdefault('tta_cfg', ConfigDict(_BOXES))
    for found in view.datasets('test'):
        dataset: Any = found.entry.settings
        if 'pipeline' in dataset:
            dataset['pipeline'] = cfg.get('tta_pipeline') or _with_mirror_image(view, dataset)
    if preprocessor := cfg.model.get('data_preprocessor'):
        # The Runner gives this field to the outer model, which replaces the inner one's.
        cfg.data_preprocessor = preprocessor
    cfg.model = ConfigDict(**model, module=cfg.model)


def _require_boxes(view: ConfigView) -> None:
    """Check that a test of mmdet needs nothing but boxes.

    Raises:
        ConfigError: If it needs more.
    """
    from mmdet.evaluation import (
        CityScapesMetric,
        CocoPanopticMetric,
        RefSegMetric,
        SemSegMetric,
    )
    from mmdet.models.detectors import BaseDetector

    merges = '--tta merges boxes only (DetTTAModel), but'
    model = view.entry(view.cfg.model, 'model', 'MODELS')
    if model.kind is not None and not model.is_a(BaseDetector):
        raise ConfigError(f'{merges} model is a {model.kind.__name__}; test it without --tta')
    others = (CityScapesMetric, CocoPanopticMetric, RefSegMetric, SemSegMetric)
    for evaluator in view.evaluators('test'):
        metric, field = evaluator.settings.get('metric'), f'{evaluator.field}.metric'
        if 'segm' in (metric or ()):
            raise ConfigError(f'{merges} {field} is {metric}; add --cfg-options {field}=bbox')
        if evaluator.is_a(*others):
            raise ConfigError(
                f'{merges} {evaluator.field} is a {evaluator.kind.__name__}; test without --tta'
            )


def _with_mirror_image(view: ConfigView, dataset: Any) -> list[dict[str, Any]]:
    """Return a test pipeline that packs the image and its mirror image."""
    *steps, pack = dataset['pipeline']
    kind = view.resolve(pack, 'TRANSFORMS')
    parameters = inspect.signature(kind).parameters if kind else {}
    if 'meta_keys' in parameters:  # By which the predictions are flipped back.
        keys = pack.get('meta_keys', parameters['meta_keys'].default)
        pack = dict(pack, meta_keys=tuple(dict.fromkeys((*keys, 'flip', 'flip_direction'))))
    versions = [dict(type='MirrorImage', flip=flip) for flip in (True, False)]
    return [*steps, dict(type='TestTimeAug', transforms=[versions, [pack]])]
