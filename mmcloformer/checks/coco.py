"""Whether annotation files in COCO's format fit the config and the images.

Asked before anything is built. The host by itself drops or swaps classes without a word, and
stops at a missing image when its turn comes.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from ..errors import DataError, join_first
from .annotations import box_problem, by_problem, size_problems

# Heads with classes of their own: objectness, and the surfaces of COCO-Stuff.
_OTHER_CLASSES = ('rpn_head', 'semantic_head')
# A number or a string, as JSON writes it.
_VALUE = r'("(?:[^"\\]|\\.)*"|[^\s,{}\[\]]+)'
# A box with anything but digits in it, such as NaN, Infinity or an exponent.
_ODD_BOX = re.compile(r'"bbox"\s*:\s*\[[\d\s.,-]*[^\d\s.,\]-]')


def check_coco(cfg: Config, splits: Sequence[str]) -> None:
    """Check the annotation files of a detector, and the number of classes of its heads.

    The files and folders themselves must be there (`check_data`). Those on other back ends, and
    formats that mmdet's `CocoDataset` does not read, are left to the host.

    A file is not parsed as a whole, which the host will do and which takes ten times as long for
    COCO's: the lists of categories and images are, and of the annotations the ids of images and
    categories are picked out, and whether a box is odd. All of it is parsed to name the annotations
    of odd boxes and unknown categories, if there are any.

    Args:
        cfg: The whole config; nothing happens unless its host is mmdet.
        splits: Of `train`, `val`, `test`.

    Raises:
        DataError: If classes and categories differ, an image is missing or has no size, two share
            an id, an annotation's image or category is not listed or its box not finite, or a head
            has another number of classes than the training set; lists all that was found.
    """
    if cfg.get('default_scope') != 'mmdet':
        return
    problems = [
        problem
        for split in splits
        for dataset in leaf_datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset'))
        for problem in dataset_problems(cfg, split, dataset)
    ]
    if problems:
        listed = '\n'.join(f'  {problem}' for problem in problems)
        raise DataError(f'the data do not fit the config:\n{listed}')


def leaf_datasets(dataset: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Find the configs of datasets inside of wrappers like ConcatDataset.

    Args:
        dataset: The config of a dataset or wrapper, if there is one.
    """
    if not dataset:
        return
    inner = [*dataset.get('datasets', []), dataset.get('dataset')]
    if inner == [None]:
        yield dataset
    for each in inner:
        yield from leaf_datasets(each)


def dataset_problems(
    cfg: Config, split: str, dataset: Mapping[str, Any], images: bool = True
) -> Iterator[str]:
    """Say what `check_coco` finds wrong with one dataset, problem by problem.

    Args:
        cfg: The whole config, of mmdet.
        split: `train`, `val` or `test`.
        dataset: The dataset's config, not a wrapper's.
        images: Whether missing images count.
    """
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    kind: Any = dataset['type']
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    has_metainfo = isinstance(kind, type) and issubclass(kind, BaseDataset)
    if not has_metainfo:
        return
    where = f'{split}_dataloader.dataset'
    metainfo = kind._load_metainfo(dataset.get('metainfo'))
    classes = metainfo.get('classes', ())
    if isinstance(classes, str):
        yield f'{where}.metainfo.classes is one string; write a tuple: ({classes!r},)'
        return
    if split == 'train' and classes:
        # Panoptic sets have more classes than boxes and masks are of.
        allowed = {len(classes), len(metainfo.get('thing_classes', classes))}
        for field, number in class_numbers(cfg.model):
            if number not in allowed:
                yield f'{field} is {number}, but {where} has {len(classes)} classes'
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    file = os.path.join(root, dataset.get('ann_file', ''))
    folder = os.path.join(root, prefix.get('img') or '')
    local = not (dataset.get('backend_args') or '://' in file + folder)
    if local and getattr(kind, 'load_data_list', None) is CocoDataset.load_data_list:
        for problem in _file_problems(file, folder if images else None, list(classes)):
            yield f'{file} ({where}): {problem}'


def class_numbers(model: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Find how many classes the heads of a model tell apart.

    Args:
        model: The model's config.

    Yields:
        The name of a field, and its number.
    """
    # Grounding models have as many "classes" as tokens.
    if 'language_model' not in model:
        heads = {key: value for key, value in model.items() if key.endswith('head')}
        yield from _numbers_below(heads, 'model')


def _numbers_below(node: Any, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping):
        return
    if 'num_classes' in node:
        yield f'{path}.num_classes', node['num_classes']
    elif 'num_things_classes' in node:
        number = node['num_things_classes'] + node.get('num_stuff_classes', 0)
        yield f'{path}.num_things_classes + num_stuff_classes', number
    for key, child in node.items():
        if key not in _OTHER_CLASSES:
            yield from _numbers_below(child, f'{path}.{key}')


def _file_problems(file: str, folder: str | None, classes: list[str]) -> Iterator[str]:
    try:
        text = Path(file).read_text(encoding='utf-8')
        categories = _list_of(text, 'categories', {'id', 'name'})
        images = _list_of(text, 'images', {'id', 'file_name'})
        unknown = _unlisted(text, 'image_id', images)
        misfits = list(_misfits(text, _unlisted(text, 'category_id', categories)))
        shared = _shared_ids(images)
    except (ValueError, TypeError) as error:  # The latter for an id that is a list.
        yield f"not in COCO's format: {error}"
        return
    names = [category['name'] for category in categories]
    used = [name for name in names if name in classes]
    if absent := [name for name in classes if name not in names]:
        yield f'no category is called {join_first(absent)}; there are {join_first(names)}'
    elif classes != used:
        yield f'its order gives the classes their numbers: write them as {tuple(used)}'
    if folder and (absent := list(_absent(folder, [image['file_name'] for image in images]))):
        yield f'{len(absent)} of {len(images)} images are not in {folder}: {join_first(absent)}'
    if unknown:
        ids = sorted(map(json.dumps, unknown))
        yield f'there are annotations of images that it does not list, image_id {join_first(ids)}'
    if shared:
        yield (
            f'image {join_first(shared)}: several files have this id, of which the host takes the last '
            'and gives it the objects of all; number them anew, in their annotations too'
        )
    yield from size_problems(images)
    yield from misfits


def _unlisted(text: str, field: str, entries: Sequence[Mapping[str, Any]]) -> set[Any]:
    """Ids under a field of the annotations that no entry has, 1.0 being 1 as for the host."""
    found = set(re.findall(rf'"{field}"\s*:\s*{_VALUE}', text))
    return {json.loads(value) for value in found} - {entry['id'] for entry in entries}


def _shared_ids(images: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Ids of more than one file; an image that is listed twice does no harm."""
    files: dict[Any, set[str]] = {}
    for image in images:
        files.setdefault(image['id'], set()).add(image['file_name'])
    return [number for number, names in files.items() if len(names) > 1]


def _misfits(text: str, categories: set[Any]) -> Iterator[str]:
    """Annotations of categories that are not listed, and those whose boxes are none."""
    if not (categories or _ODD_BOX.search(text)):
        return
    annotations = [*map(dict, json.loads(text).get('annotations', []))]
    yield from by_problem(
        (
            annotation,
            f'no category has the id {json.dumps(annotation.get("category_id"))}, the host drops '
            'its objects without a word; correct category_id, or add the category',
        )
        for annotation in annotations
        if annotation.get('category_id') in categories
    )
    yield from by_problem((a, box_problem(a['bbox'])) for a in annotations if 'bbox' in a)


def _list_of(text: str, key: str, fields: set[str]) -> list[dict[str, Any]]:
    """The list under a key of the file, told from others of that name by its entries' fields.

    Raises:
        ValueError: If there is none.
    """
    for match in re.finditer(rf'"{key}"\s*:\s*(?=\[)', text):
        found, _ = json.JSONDecoder().raw_decode(text, match.end())
        if found and all(isinstance(entry, dict) and entry.keys() >= fields for entry in found):
            return found
    raise ValueError(f'it has no list of {key}, each with {" and ".join(sorted(fields))}')


def _absent(folder: str, files: list[str]) -> Iterator[str]:
    """Files that are not in the folder, each of whose folders is listed once."""
    listings: dict[str, set[str]] = {}
    for file in files:
        parent, name = os.path.split(os.path.join(folder, file))
        if parent not in listings:
            listings[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        if name not in listings[parent]:
            yield file
