"""Compares the numbers of classes in a config's model, preprocessor and evaluators."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

from .fields import evaluator_fields, find_class, type_name

# Heads whose classes are not the data set's: objectness, and the surfaces of COCO-Stuff.
_OTHER_CLASSES = ('rpn_head', 'semantic_head')
_BOUNDARY_HEAD = 'STDCHead'  # Of mmseg: predicts whether a pixel is on a boundary.
_TOPK_METRICS = ('Accuracy', 'MultiLabelMetric', 'VOCMultiLabelMetric')


class Number(NamedTuple):
    """Number of classes that a field of the config gives.

    Attributes:
        field: Name of the field.
        found: Its value.
        classes: How many classes that makes. A segmentor with one output channel tells two classes
            apart.
    """

    field: str
    found: int
    classes: int


def head_numbers(cfg: Config) -> Iterator[Number]:
    """Yield the number of classes of each head of a model.

    Heads for something else than the classes of the data are left out: objectness, boundaries,
    regression, pre-training, several tasks.

    Args:
        cfg: The whole config, of any host.
    """
    for path, node in _nodes(cfg):
        if 'num_classes' in node:
            yield from _outputs(cfg, path, node)
        elif 'num_things_classes' in node:
            number = node['num_things_classes'] + node.get('num_stuff_classes', 0)
            yield Number(f'{path}.num_things_classes + num_stuff_classes', number, number)


def number_problems(
    cfg: Config, splits: Sequence[str], allowed: Sequence[int], reason: str
) -> Iterator[str]:
    """Yield the fields that give another number of classes than the data have.

    Args:
        cfg: The whole config, of any host.
        splits: Which of `train`, `val` and `test` to check the evaluators of.
        allowed: Numbers of classes that heads may have; the first one is recommended.
        reason: Where that number comes from, as part of a sentence.
    """
    count = allowed[0]
    heads = list(head_numbers(cfg))
    for field, found, classes in heads:
        if classes not in allowed:
            yield f'{field} is {found}, but {reason}; set it to {count}'
    known = {number.classes for number in heads}
    # Some losses have a weight for the background, or for no object, too.
    fitting = {number + extra for number in allowed for extra in (0, 1)}
    # A single output channel has the weight of its positive class.
    fitting |= {found for _, found, _ in heads if found == 1}
    for path, node in _nodes(cfg):
        weights = node.get('class_weight')
        if isinstance(weights, (list, tuple)) and len(weights) not in fitting:
            extra = len(weights) - 1 in known and len(weights) not in known
            yield (
                f'{path}.class_weight has {len(weights)} values, but {reason}; '
                f'give it {count + extra}'
            )
    if cfg.get('default_scope') == 'mmpretrain' and heads:
        yield from _preprocessor_problems(cfg, allowed, reason)
        yield from topk_problems(cfg, splits, count, reason)


def _nodes(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the configs of the heads and everything in them, each with its name."""
    model = cfg.get('model') or {}
    if cfg.get('default_scope') == 'mmpretrain':
        yield from _classifier_nodes(model)
    elif 'language_model' not in model:  # There num_classes is the maximum number of text tokens.
        inner = model.get('detector')  # Of semi-supervised detectors.
        for path, parts in (('model', model), ('model.detector', inner)):
            for key, value in parts.items() if isinstance(parts, Mapping) else ():
                if key.endswith('head') and key not in _OTHER_CLASSES:
                    yield from _nodes_below(value, f'{path}.{key}')


def _nodes_below(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping) or type_name(node.get('type')) == _BOUNDARY_HEAD:
        return
    yield path, node
    for key, child in node.items():
        if key not in _OTHER_CLASSES:
            yield from _nodes_below(child, f'{path}.{key}')


def _classifier_nodes(model: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from mmpretrain.models.heads import ClsHead, MultiLabelClsHead

    if type_name(model.get('type')) == 'TimmClassifier':
        yield 'model', {key: model[key] for key in ('num_classes', 'loss') if key in model}
    head = model.get('head')
    if not isinstance(head, Mapping) or head.get('type') is None:
        return
    kind = find_class(head['type'], 'mmpretrain', 'MODELS')
    classifies = isinstance(kind, type) and issubclass(kind, (ClsHead, MultiLabelClsHead))
    if not classifies or 'Regression' in kind.__name__:
        return
    yield from _nodes_below(head, 'model.head')
    # Backbones such as VGG hold the last layer themselves.
    backbone = model.get('backbone') or {}
    if 'num_classes' not in head and backbone.get('num_classes', 0) > 0:
        yield 'model.backbone', dict(num_classes=backbone['num_classes'])


def _outputs(cfg: Config, path: str, node: Mapping[str, Any]) -> Iterator[Number]:
    number = node['num_classes']
    if cfg.get('default_scope') == 'mmseg' and _decodes(node):
        channels = node.get('out_channels')
        if channels is not None:
            yield Number(f'{path}.out_channels', channels, max(channels, 2))
        yield Number(f'{path}.num_classes', number, max(number, 2))
    else:
        yield Number(f'{path}.num_classes', number, number)


def _decodes(head: Mapping[str, Any]) -> bool:
    """Return whether `out_channels` of a segmentor's head is its number of outputs.

    In mask classifiers such as Mask2Former it is the width of the features.
    """
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    kind = find_class(head.get('type'), 'mmseg', 'MODELS')
    return isinstance(kind, type) and issubclass(kind, BaseDecodeHead)


def _preprocessor_problems(cfg: Config, allowed: Sequence[int], reason: str) -> Iterator[str]:
    """Yield a wrong `num_classes` of the preprocessor, if it makes one-hot labels."""
    model = cfg.model
    inside = model.get('data_preprocessor') is not None
    settings = (model if inside else cfg).get('data_preprocessor') or {}
    if type_name(settings.get('type')) not in ('', 'ClsDataPreprocessor'):
        return
    mixed = settings.get('batch_augments', model.get('train_cfg'))
    number = settings.get('num_classes')
    if (mixed or settings.get('to_onehot')) and number and number not in allowed:
        field = f'{"model." * inside}data_preprocessor.num_classes'
        yield f'{field} is {number}, but {reason}; set it to {allowed[0]}'


def topk_problems(cfg: Config, splits: Sequence[str], count: int, reason: str) -> Iterator[str]:
    """Yield each `topk` of a classifier with more places than there are classes.

    Args:
        cfg: The whole config.
        splits: Which of `train`, `val` and `test` to check the evaluators of.
        count: Number of classes.
        reason: Where that number comes from, as part of a sentence.
    """
    settings = []
    for split in splits:
        settings += [
            (field, each)
            for field, each in evaluator_fields(cfg, split)
            if type_name(each.get('type')) in _TOPK_METRICS
        ]
    head = cfg.model.get('head') or {}
    if head.get('cal_acc'):
        settings.append(('model.head', head))
    for field, node in settings:
        topk = node.get('topk') or ()
        places = (topk,) if isinstance(topk, int) else tuple(topk)
        if places and max(places) > count:
            fitting = tuple(place for place in places if place <= count) or (1,)
            advice = fitting[0] if isinstance(topk, int) else fitting
            yield f'{field}.topk is {topk}, but {reason}; set it to {advice}'
