"""Test-time augmentation with the hosts' own models and pipelines."""

import copy
from typing import Any

from mmengine.config import Config, ConfigDict

from ..config import ConfigView
from ..errors import ConfigError

_MODELS: dict[str, dict[str, Any]] = {
    'mmdet': dict(
        type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
    ),
    'mmseg': dict(type='SegTTAModel'),
    'mmpretrain': dict(type='AverageClsScoreTTA'),
}
_FLIPS = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
_DETECTION_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


def augment_test(cfg: Config) -> None:
    """Test on several versions of every image and merge the predictions, as the hosts' tools do.

    The config's `tta_model` and `tta_pipeline` are used. Without a `tta_pipeline`, the versions are
    the image and its mirror image.

    Args:
        cfg: Config of a test, changed in place.

    Raises:
        ConfigError: If the test measures masks, which mmdet's `DetTTAModel` does not merge.
    """
    model = cfg.get('tta_model') or ConfigDict(_MODELS[cfg.default_scope])
    if str(model['type']).endswith('DetTTAModel') and 'segm' in _metrics(cfg):
        raise ConfigError(
            f'--tta merges boxes only ({model["type"]}), but test_evaluator.metric is '
            f'{_metrics(cfg)}; add --cfg-options test_evaluator.metric=bbox'
        )
    dataset: Any
    for found in ConfigView(cfg).datasets('test'):
        dataset = found.entry.settings
        if 'pipeline' in dataset:
            dataset['pipeline'] = cfg.get('tta_pipeline') or _with_flips(dataset['pipeline'])
    cfg.model = ConfigDict(**model, module=cfg.model)


def _metrics(cfg: Config) -> list[str]:
    found: list[str] = []
    for evaluator in ConfigView(cfg).evaluators('test'):
        metric = evaluator.settings.get('metric') or []
        found += [metric] if isinstance(metric, str) else metric
    return found


def _with_flips(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a test pipeline that packs the image and its mirror image."""
    *steps, pack = copy.deepcopy(pipeline)
    if pack['type'] == 'PackDetInputs':
        pack['meta_keys'] = (*pack.get('meta_keys', _DETECTION_KEYS), 'flip', 'flip_direction')
    # After the flip, since the evaluators compare with annotations that are not flipped.
    annotations = [step for step in steps if step['type'] == 'LoadAnnotations']
    steps = [step for step in steps if step not in annotations]
    return [
        *steps,
        dict(type='TestTimeAug', transforms=[_FLIPS, *([a] for a in annotations), [pack]]),
    ]
