"""Checks that mmdet's evaluators read the annotation file whose images their loader predicts."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import ConcatDataset
from mmengine.evaluator import Evaluator

from ..config import ConfigView, Entry
from ..errors import join_first
from .coco import CocoFile, local_file, read_coco
from .problem import Problem

# Of the fields that are compared; panoptic annotations have no id of their own.
_FIELDS = dict(images=('id', 'file_name'), categories=('id', 'name'), annotations=('image_id',))


def evaluator_problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield which evaluators score other images than their loader's.

    mmdet matches predictions by image id. It stops if the evaluator's file lacks an id, counts
    the objects of images that are never predicted as missed, and scores against the wrong objects
    if an id belongs to another image. Files that differ otherwise, such as in their boxes, pass;
    `coco_problems` compares their classes.

    Args:
        view: The config; nothing is yielded unless its host is mmdet.
        splits: Which of `train`, `val` and `test` to check. Data sets in wrappers other than
            `ConcatDataset`, files on other back ends, and evaluators in a class other than
            mmengine's `Evaluator` are left to the host.
    """
    if view.host != 'mmdet':
        return
    seen = []
    for split in splits:
        settings = [view.cfg.get(f'{split}_{name}') for name in ('dataloader', 'evaluator')]
        if settings not in seen:  # The test split is mostly the validation split.
            yield from _split_problems(view, split)
        seen.append(settings)


def _split_problems(view: ConfigView, split: str) -> Iterator[Problem]:
    from mmdet.evaluation import CocoMetric, CocoPanopticMetric

    whole = view.entry(view.cfg.get(f'{split}_evaluator'), '', 'EVALUATOR')
    if 'metrics' in whole.settings and whole.kind not in (None, Evaluator):
        return
    evaluators = [
        each
        for each in view.evaluators(split)
        if each.is_a(CocoMetric, CocoPanopticMetric) and not each.settings.get('format_only')
    ]
    datasets = [each.entry for each in view.datasets(split)]
    files = _loaded_files(view, split, datasets)
    if not files or not evaluators:
        return
    loaded = [read_coco(file, _FIELDS) for file in files] if len(files) > 1 else []
    ids = Counter(image for coco in loaded for image in {each['id'] for each in coco.images})
    if shared := [image for image, number in ids.items() if number > 1]:
        yield Problem(
            evaluators[0].field,
            f'compares by image id, but {", ".join(each.field for each in datasets)} have '
            f'{len(shared)} ids in common (image_id {join_first(shared)}), so predictions are '
            'compared with the objects of other images',
            "set the type to 'MultiDatasetsEvaluator' with one of metrics and dataset_prefixes "
            'per data set, or give all images ids of their own',
        )
        return
    for evaluator in evaluators:
        scored = local_file(evaluator)
        if scored is None or [*map(os.path.realpath, files)] == [os.path.realpath(scored)]:
            continue
        loaded = loaded or [read_coco(file, _FIELDS) for file in files]
        if found := _misfit(loaded, read_coco(scored, _FIELDS), datasets):
            yield Problem(
                f'{evaluator.field}.ann_file',
                f'is {scored}, but {split}_dataloader.dataset reads {" and ".join(files)}: {found}',
                'set both to the same file'
                if len(files) == 1
                else 'set it to a file of all their images',
            )


def _loaded_files(view: ConfigView, split: str, datasets: Sequence[Entry]) -> list[str]:
    """Return the annotation files of COCO data sets whose images are predicted as listed."""
    from mmdet.datasets import CocoDataset

    field = f'{split}_dataloader.dataset'
    whole = view.entry(view.loader(split).get('dataset'), field, 'DATASETS')
    names = [each.field for each in datasets]
    if names != [field]:
        several = [f'{field}.datasets.{index}' for index in range(len(names))]
        if names != several or not whole.is_a(ConcatDataset):
            return []
    files = [local_file(each) for each in datasets if each.is_a(CocoDataset)]
    known = [file for file in files if file]
    return known if len(known) == len(datasets) else []


def _misfit(loaded: Sequence[CocoFile], scored: CocoFile, datasets: Sequence[Entry]) -> str | None:
    """Return how the images of an evaluator's file differ from those of its loader."""
    predicted = {image['id']: image for coco in loaded for image in coco.images}
    known = {image['id']: image for image in scored.images}
    if not predicted or not known:  # Other checks say why a file cannot be read.
        return None
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
    for number, image in predicted.items():
        other = known.get(number, image)
        if _stem(image) != _stem(other) and objects.get(number) != others.get(number):
            return (
                f'image ids belong to other images (image_id {number} is {image["file_name"]} in '
                f"the dataset and {other['file_name']} in the evaluator's file), so predictions "
                'are compared with the objects of other images'
            )
    missed = [each for each in known if each not in predicted and each in objects]
    if missed and not partial:
        return (
            f"the evaluator's file has {len(missed)} more images with objects (image_id "
            f'{join_first(missed)}), which are never predicted and count as missed'
        )
    return None


def _boxes(files: Sequence[CocoFile]) -> dict[Any, list[str]]:
    """Return the boxes of each image that has any, in an order that does not depend on the file."""
    boxes: dict[Any, list[str]] = {}
    for coco in files:
        for each in coco.annotations:
            boxes.setdefault(each['image_id'], []).append(str(each.get('bbox')))
    return {image: sorted(those) for image, those in boxes.items()}


def _stem(image: Mapping[str, Any]) -> str:
    return Path(image['file_name'].replace('\\', '/')).stem
