"""Checks that mmdet's evaluators read the annotation file whose images their loader predicts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config import ConfigView, Entry
from ..errors import DataError, join_first
from .coco import parse_without_polygons


def check_evaluators(cfg: Config, splits: Sequence[str]) -> None:
    """Check the evaluators of a detector.

    Args:
        cfg: The whole config; nothing happens unless its host is mmdet.
        splits: Which of `train`, `val` and `test` to check.

    Raises:
        DataError: As `evaluator_misfits`, which says what is found.
    """
    if problems := [problem for split in splits for problem in evaluator_misfits(cfg, split)]:
        listed = '\n'.join(f'  {problem}' for problem in problems)
        raise DataError(f'evaluator and loader do not fit:\n{listed}')


def evaluator_misfits(cfg: Config, split: str) -> Iterator[str]:
    """Yield which evaluators score other images or classes than their loader's.

    The host matches predictions by image id. It stops if the evaluator's file lacks an id, counts
    the objects of images that are never predicted as missed, and scores against the wrong objects
    if an id belongs to another image. Files that differ otherwise, such as in their boxes, pass.

    Args:
        cfg: The whole config; nothing is yielded unless its host is mmdet.
        split: `train`, `val` or `test`. Datasets in wrappers and files on other back ends are
            left to the host.
    """
    view = ConfigView(cfg)
    field = f'{split}_dataloader.dataset'
    entry = view.entry(view.loader(split).get('dataset'), field, 'DATASETS')
    dataset = entry.settings
    if view.host != 'mmdet' or not _is_coco(entry):
        return
    loaded = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    for evaluator in view.evaluators(split):
        file = _scored_file(evaluator)
        remote = '://' in f'{file}{loaded}' or dataset.get('backend_args')
        if not file or remote or os.path.realpath(file) == os.path.realpath(loaded):
            continue
        if not (os.path.isfile(file) and os.path.isfile(loaded)):
            continue  # `check_present` names it.
        field = f'{evaluator.field}.ann_file'
        try:
            problem = _misfit(_read(loaded), _read(file), entry)
        except (ValueError, KeyError, TypeError, AttributeError):  # Other checks say why.
            continue
        if problem:
            yield (
                f'{field} is {file}, but {split}_dataloader.dataset reads {loaded} (data_root and '
                f'ann_file): {problem}; set {field}={loaded}, or data_root and ann_file of the '
                'dataset'
            )


def _is_coco(dataset: Entry) -> bool:
    from mmdet.datasets import CocoDataset

    return dataset.is_a(CocoDataset)


def _scored_file(evaluator: Entry) -> str | None:
    """Return the annotation file that an evaluator compares with by image id, or None."""
    from mmdet.evaluation import CocoMetric, CocoPanopticMetric

    settings, file = evaluator.settings, evaluator.settings.get('ann_file')
    by_id = evaluator.is_a(CocoMetric, CocoPanopticMetric)
    scored = by_id and not settings.get('format_only') and not settings.get('backend_args')
    return file if scored and isinstance(file, str) else None


def _read(file: str) -> Any:
    return parse_without_polygons(Path(file).read_text(encoding='utf-8-sig'))


def _misfit(loaded: Any, scored: Any, entry: Entry) -> str | None:
    dataset = entry.settings
    predicted = {image['id']: image for image in loaded['images']}
    known = {image['id']: image for image in scored['images']}
    absent = [each for each in predicted if each not in known]
    partial = dataset.get('indices') is not None or (
        dataset.get('filter_cfg') and not dataset.get('test_mode')
    )
    if absent and not (partial and len(absent) < len(predicted)):
        return (
            f'{len(absent)} of the {len(predicted)} images of the dataset are not in the '
            f"evaluator's file (image_id {join_first(absent)}), so the first evaluation fails"
        )
    objects, others = _boxes(scored), _boxes(loaded)
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
    return _class_misfit(scored, entry)


def _boxes(content: Any) -> dict[Any, list[str]]:
    """Return the boxes of each image that has any, in an order that does not depend on the file."""
    boxes: dict[Any, list[str]] = {}
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
