"""Compares the numbers of classes in a config's model, preprocessor and evaluators."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

from ..config import ConfigView, Entry, Node, is_in_hosts, walk
from .problem import Problem, Severity


class Number(NamedTuple):
    """Number of classes that a field of the config gives.

    Attributes:
        field: Name of the field.
        found: Its value.
        classes: How many classes that makes. A segmentor with one output channel tells two classes
            apart.
        severity: `warning` in a head of the user's own, which may count in another way.
    """

    field: str
    found: int
    classes: int
    severity: Severity


def head_numbers(view: ConfigView) -> Iterator[Number]:
    """Yield the number of classes of each head of a model.

    Heads that do not predict the classes of the data are left out: objectness, boundaries, masks of
    any class, regression, pre-training, several tasks.
    """
    decode_heads: tuple[type, ...] = ()
    if view.host == 'mmseg':
        # In mask classifiers such as Mask2Former, `out_channels` is the width of the features.
        decode_heads = (import_module('mmseg.models.decode_heads.decode_head').BaseDecodeHead,)
    for (field, settings, _), severity in _head_parts(view):
        number = settings.get('num_classes')
        if settings.get('class_agnostic'):
            continue
        if number is None and 'num_things_classes' in settings:
            number = settings['num_things_classes'] + settings.get('num_stuff_classes', 0)
            name = f'{field}.num_things_classes + num_stuff_classes'
            yield Number(name, number, number, severity)
        elif number is not None and view.entry(settings, field, 'MODELS').is_a(*decode_heads):
            if (channels := settings.get('out_channels')) is not None:
                yield Number(f'{field}.out_channels', channels, max(channels, 2), severity)
            yield Number(f'{field}.num_classes', number, max(number, 2), severity)
        elif number is not None:
            yield Number(f'{field}.num_classes', number, number, severity)


def host_numbers(view: ConfigView) -> Iterator[Number]:
    """Yield the numbers of classes of the host's own heads; others may count in another way."""
    yield from (number for number in head_numbers(view) if number.severity == 'error')


def number_problems(
    view: ConfigView, splits: Sequence[str], allowed: Sequence[int], reason: str
) -> Iterator[Problem]:
    """Yield the fields that give another number of classes than the data have.

    Args:
        view: The config, of any host.
        splits: Which of `train`, `val` and `test` to check the evaluators of.
        allowed: Numbers of classes that heads may have; the first one is recommended.
        reason: Where that number comes from, as part of a sentence.
    """
    count = allowed[0]
    heads = list(head_numbers(view))
    for each in heads:
        if each.classes not in allowed:
            found = f'is {each.found}, but {reason}'
            yield Problem(each.field, found, f'set it to {count}', severity=each.severity)
    for node, severity in _head_parts(view):
        weights = node.value.get('class_weight')
        loss = view.entry(node.value, node.field, 'MODELS')
        if not isinstance(weights, (list, tuple)) or not is_in_hosts(loss.kind):
            continue
        # Stuff alone has classes of its own, and a single weight is one for all.
        if 'semantic_head' in node.field.split('.') or len(weights) == 1:
            continue
        extra = _weighs_background(view, node, loss)
        if len(weights) - extra not in allowed:
            last = ', the last of which is for the background or no object' if extra else ''
            yield Problem(
                f'{node.field}.class_weight',
                f'has {len(weights)} values, but {reason}',
                f'give it {count + extra}{last}',
                severity=severity,
            )
    if view.host == 'mmpretrain' and heads:
        others = [
            *_preprocessor_problems(view, allowed, reason),
            *topk_problems(view, splits, count, reason),
        ]
        yield from (each._replace(severity=heads[0].severity) for each in others)


def ignored_label_problems(view: ConfigView) -> Iterator[Problem]:
    """Warn of a segmentor's heads and evaluators that ignore other labels than its first head."""
    labels = view.ignored_labels('train', 'val', 'test')
    first = next(iter(labels), '')
    for field, label in labels.items():
        if label != labels[first]:
            yield Problem(
                f'{field}.ignore_index',
                f'is {label}, but {first}.ignore_index is {labels[first]}',
                'set both to the label of what is left out',
                severity='warning',
            )


def _weighs_background(view: ConfigView, node: Node, loss: Entry) -> bool:
    """Return whether a loss has one weight more than classes: for background, or no object."""
    if view.host == 'mmseg':
        from mmseg.models.decode_heads.san_head import SideAdapterCLIPHead

        if any(view.entry(each, '', 'MODELS').is_a(SideAdapterCLIPHead) for each in node.parents):
            return True
    return loss.kind.__module__.startswith('mmdet.') and not loss.settings.get('use_sigmoid')


def _head_parts(view: ConfigView) -> Iterator[tuple[Node, Severity]]:
    """Yield the settings of the heads and everything in them, with the severity of `Number`."""
    model = view.cfg.get('model') or {}
    if 'language_model' in model:  # There num_classes is the maximum number of text tokens.
        return
    heads, others = _classes_of_heads(view.host)
    for node in walk(model, 'model'):
        if not isinstance(node.value, Mapping) or 'rpn_head' in node.field.split('.'):
            continue
        around = [view.entry(each, '', 'MODELS') for each in (*node.parents, node.value)]
        found = [each for each in around if each.is_a(*heads)]
        if found and not any(each.is_a(*others) for each in around):
            yield node, 'error' if all(is_in_hosts(each.kind) for each in found) else 'warning'


def _classes_of_heads(host: str | None) -> tuple[tuple[type, ...], tuple[type, ...]]:
    """Return the base classes of a host's heads, and the heads that predict other classes."""
    if host == 'mmdet':
        from mmdet.models.dense_heads import DETRHead
        from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
        from mmdet.models.dense_heads.base_mask_head import BaseMaskHead
        from mmdet.models.roi_heads import BaseRoIHead, BBoxHead, FCNMaskHead, FusedSemanticHead
        from mmdet.models.seg_heads import BasePanopticFusionHead
        from mmdet.models.seg_heads.base_semantic_head import BaseSemanticHead

        dense = (BaseDenseHead, BaseMaskHead, DETRHead)
        of_regions = (BaseRoIHead, BBoxHead, FCNMaskHead)
        # FusedSemanticHead predicts the surfaces of COCO-Stuff.
        panoptic = (BaseSemanticHead, BasePanopticFusionHead)
        return (*dense, *of_regions, *panoptic), (FusedSemanticHead,)
    if host == 'mmseg':
        from mmseg.models import decode_heads
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead

        mask_classifiers = (decode_heads.MaskFormerHead, decode_heads.Mask2FormerHead)
        return (BaseDecodeHead, *mask_classifiers), (decode_heads.STDCHead,)  # Boundaries.
    if host == 'mmpretrain':
        from mmpretrain.models import heads

        regression = getattr(heads, 'RegressionHead', heads.MultiTaskHead)  # Not in every version.
        return (heads.ClsHead, heads.MultiLabelClsHead), (heads.MultiTaskHead, regression)
    return (), ()


def _preprocessor_problems(
    view: ConfigView, allowed: Sequence[int], reason: str
) -> Iterator[Problem]:
    """Yield a wrong `num_classes` of the preprocessor, if it makes one-hot labels."""
    from mmpretrain.models import ClsDataPreprocessor

    field, settings, _ = preprocessor = view.preprocessor()
    mixed = settings.get('batch_augments', view.cfg.model.get('train_cfg'))
    number = settings.get('num_classes')
    used = preprocessor.is_a(ClsDataPreprocessor) and (mixed or settings.get('to_onehot'))
    if used and number and number not in allowed:
        found = f'is {number}, but {reason}'
        yield Problem(f'{field}.num_classes', found, f'set it to {allowed[0]}')


def topk_problems(
    view: ConfigView, splits: Sequence[str], count: int, reason: str
) -> Iterator[Problem]:
    """Yield each `topk` of a classifier that exceeds the number of classes.

    Args:
        view: The config.
        splits: Which of `train`, `val` and `test` to check the evaluators of.
        count: Number of classes.
        reason: Where that number comes from, as part of a sentence.
    """
    from mmpretrain.evaluation import Accuracy, MultiLabelMetric

    found = [each for each in view.evaluators(*splits) if each.is_a(Accuracy, MultiLabelMetric)]
    head = view.entry(view.cfg.model.get('head'), 'model.head', 'MODELS')
    if head.settings.get('cal_acc'):
        found.append(head)
    for field, settings, _ in found:
        topk = settings.get('topk') or ()
        places = (topk,) if isinstance(topk, int) else tuple(topk)
        if places and max(places) > count:
            fitting = tuple(place for place in places if place <= count) or (1,)
            advice = fitting[0] if isinstance(topk, int) else fitting
            yield Problem(f'{field}.topk', f'is {topk}, but {reason}', f'set it to {advice}')
