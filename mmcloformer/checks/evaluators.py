"""Checks that mmdet's evaluators read the annotation file whose images their loader predicts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import ConcatDataset

from ..config import ConfigView, Entry
from ..errors import join_first
from .coco import parse_without_polygons
from .problem import Problem


def evaluator_problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield which evaluators score other images or classes than their loader's.

    mmdet matches predictions by image id. It stops if the evaluator's file lacks an id, counts
    the objects of images that are never predicted as missed, and scores against the wrong objects
    if an id belongs to another image. Files that differ otherwise, such as in their boxes, pass.

    Args:
        view: The config; nothing is yielded unless its host is mmdet.
        splits: Which of `train`, `val` and `test` to check. Data sets in wrappers other than
            `ConcatDataset`, and files on other back ends, are left to the host.
    """
    if view.host != 'mmdet':
        return
    for split in dict.fromkeys(splits):
        same = split == 'test' and 'val' in splits and _has_the_same(view, 'val', 'test')
        if not same:
            yield from _split_problems(view, split)


def _has_the_same(view: ConfigView, split: str, other: str) -> bool:
    names = ('dataloader', 'evaluator')
    return all(view.cfg.get(f'{split}_{name}') == view.cfg.get(f'{other}_{name}') for name in names)


def _split_problems(view: ConfigView, split: str) -> Iterator[Problem]:
    files = _loaded_files(view, split)
    evaluators = [each for each in view.evaluators(split) if _compares_ids(each)]
    if not files or not evaluators:
        return
    try:
        contents = [_read(path) for path in files.values()] if len(files) > 1 else []
        if shared := _shared_ids(contents):
            yield Problem(
                evaluators[0].field,
                f'compares by image id, but {", ".join(files)} have {len(shared)} ids in common '
                f'(image_id {join_first(shared)}), so predictions are compared with the objects '
                'of other images',
                "set the type to 'MultiDatasetsEvaluator' with one of metrics and dataset_prefixes "
                'per data set, or give all images ids of their own',
            )
            return
        for evaluator in evaluators:
            scored = evaluator.settings.get('ann_file')
            known = [os.path.realpath(path) for path in files.values()]
            if not isinstance(scored, str) or known == [os.path.realpath(scored)]:
                continue
            contents = contents or [_read(path) for path in files.values()]
            if found := _misfit(contents, _read(scored), [*_leaves(view, split)]):
                loaded = ' and '.join(files.values())
                yield Problem(
                    f'{evaluator.field}.ann_file',
                    f'is {scored}, but {split}_dataloader.dataset reads {loaded}: {found}',
                    'set both to the same file'
                    if len(files) == 1
                    else 'set it to a file of all their images',
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # Other checks say why.
        return


def _leaves(view: ConfigView, split: str) -> Iterator[Entry]:
    return (each.entry for each in view.datasets(split))


def _loaded_files(view: ConfigView, split: str) -> dict[str, str]:
    """Return fields and annotation files of COCO data sets that are read as they are."""
    from mmdet.datasets import CocoDataset

    field = f'{split}_dataloader.dataset'
    outer = view.entry(view.loader(split).get('dataset'), field, 'DATASETS')
    leaves = [*_leaves(view, split)]
    nested = any(each.field.count('.dataset') > 2 - (each.field == field) for each in leaves)
    if nested or not (outer.is_a(CocoDataset, ConcatDataset)):
        return {}
    files = {}
    for each in leaves:
        root, name = each.settings.get('data_root') or '', each.settings.get('ann_file') or ''
        file = os.path.join(root, name)
        if not each.is_a(CocoDataset) or each.settings.get('backend_args') or '://' in file:
            return {}
        files[each.field] = file
    return files


def _compares_ids(evaluator: Entry) -> bool:
    """Return whether an evaluator compares with a local annotation file by image id."""
    from mmdet.evaluation import CocoMetric, CocoPanopticMetric

    settings = evaluator.settings
    unread = settings.get('format_only') or settings.get('backend_args')
    return evaluator.is_a(CocoMetric, CocoPanopticMetric) and not unread


def _read(file: str) -> Any:
    return parse_without_polygons(Path(file).read_text(encoding='utf-8-sig'))


def _shared_ids(contents: Sequence[Any]) -> list[Any]:
    """Return the image ids that more than one file has."""
    ids = [{image['id'] for image in each['images']} for each in contents]
    seen: set[Any] = set()
    shared: set[Any] = set()
    for each in ids:
        shared |= seen & each
        seen |= each
    return sorted(shared, key=str)


def _misfit(loaded: Sequence[Any], scored: Any, datasets: Sequence[Entry]) -> str | None:
    predicted = {image['id']: image for each in loaded for image in each['images']}
    known = {image['id']: image for image in scored['images']}
    absent = [each for each in predicted if each not in known]
    partial = any(
        each.settings.get('indices') is not None
        or (each.settings.get('filter_cfg') and not each.settings.get('test_mode'))
        for each in datasets
    )
    if absent and not (partial and len(absent) < len(predicted)):
        return (
            f'{len(absent)} of the {len(predicted)} images of the dataset are not in the '
            f"evaluator's file (image_id {join_first(absent)}), so the first evaluation fails"
        )
    objects, others = _boxes([scored]), _boxes(loaded)
    renamed = [
        each
        for each, image in predicted.items()
        if each in known
        and _stem(image) != _stem(known[each])
        and objects.get(each) != others.get(each)
    ]
    if renamed:
        first = renamed[0]
        return (
            f'{len(renamed)} image ids belong to other images (image_id {first} is '
            f'{predicted[first]["file_name"]} in the dataset and {known[first]["file_name"]} in '
            "the evaluator's file), so predictions are compared with the objects of other images"
        )
    missed = [each for each in known if each not in predicted and objects.get(each)]
    if missed and not partial:
        return (
            f"the evaluator's file has {len(missed)} more images with objects (image_id "
            f'{join_first(missed)}), which are never predicted and count as missed'
        )
    return _class_misfit(scored, datasets[0])


def _boxes(contents: Sequence[Any]) -> dict[Any, list[str]]:
    """Return the boxes of each image that has any, in an order that does not depend on the file."""
    boxes: dict[Any, list[str]] = {}
    for content in contents:
        for each in content.get('annotations', []):
            boxes.setdefault(each['image_id'], []).append(str(each.get('bbox')))
    return {image: sorted(those) for image, those in boxes.items()}


def _stem(image: Mapping[str, Any]) -> str:
    return Path(image.get('file_name', '').replace('\\', '/')).stem


def _class_misfit(scored: Any, dataset: Entry) -> str | None:
    kind = dataset.kind
    classes = kind._load_metainfo(dataset.settings.get('metainfo')).get('classes', ())
    names = [category['name'] for category in scored.get('categories', [])]
    if 'thing_classes' in kind.METAINFO or not names or isinstance(classes, str):
        return None
    if absent := [name for name in classes if name not in names]:
        return f"the evaluator's file has no category called {join_first(absent)}"
    order = [name for name in names if name in classes]
    if order != list(classes):
        return (
            f"the evaluator's file lists the classes as {', '.join(order)} and the dataset as "
            f'{", ".join(classes)}, and the host goes by their order'
        )
    return None
