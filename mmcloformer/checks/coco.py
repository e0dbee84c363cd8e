"""Checks that annotation files in COCO format match the config and the images.

They run before anything is built: mmdet itself silently drops or swaps classes, and stops at a
missing image only when it loads that image.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config import ConfigView
from ..errors import join_first
from .annotations import box_problem, by_problem, size_problems
from .class_names import read_classes
from .learnable import box_problems, box_warnings
from .left_out import filtered_images
from .text import decode_text, mark_problem

# Fields that pycocotools reads from every annotation when it builds its index.
_INDEXED = ('id', 'image_id', 'category_id')
# A polygon mask in valid JSON, numbers without exponents; the parser sees all others.
_SPACE = r'[ \t\r\n]*'
_NUMBER = r'-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?'
_POLYGON = rf'\[{_SPACE}{_NUMBER}(?:{_SPACE},{_SPACE}{_NUMBER})*{_SPACE}\]'
_POLYGONS = re.compile(
    rf'(?<!\\)"segmentation"{_SPACE}:{_SPACE}'
    rf'\[{_SPACE}{_POLYGON}(?:{_SPACE},{_SPACE}{_POLYGON})*{_SPACE}\]'
)


def coco_problems(cfg: Config, splits: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the annotation files of a detector.

    The files and folders must exist (see `check_present`). Files on other back ends, and datasets
    that load or parse annotations with code of their own, are not checked.

    Args:
        cfg: The whole config; nothing happens unless its host is mmdet.
        splits: Which of `train`, `val` and `test` to check.

    Yields:
        Classes that differ from the categories, images that are missing or have no size, two images
        that share an id, annotations that refer to an unlisted image or category, boxes that are
        not four finite numbers or are written as corners, nothing but crowds, and files of which
        no image is left after filtering.
    """
    if cfg.get('default_scope') == 'mmdet':
        for split in splits:
            for found in ConfigView(cfg).datasets(split):
                yield from dataset_problems(cfg, split, found.entry.settings)


def dataset_problems(
    cfg: Config,
    split: str,
    dataset: Mapping[str, Any],
    images: bool = True,
    warnings: list[str] | None = None,
) -> Iterator[str]:
    """Yield the problems that `coco_problems` finds in one dataset.

    Args:
        cfg: The whole config, of mmdet.
        split: `train`, `val` or `test`.
        dataset: The dataset's config, not a wrapper's.
        images: Whether to look for missing images.
        warnings: Gets what is unusual but may be meant, such as images that are left out.
    """
    from mmdet.datasets import CocoDataset

    where = f'{split}_dataloader.dataset'
    view = ConfigView(cfg)
    _, found = read_classes(view, view.entry(dataset, where, 'DATASETS'))
    if found is None or not found.names:  # Some data sets read the names from a file of their own.
        return
    kind, classes = found.kind, found.names
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    file = os.path.join(root, dataset.get('ann_file', ''))
    folder = os.path.join(root, prefix.get('img') or '')
    local = not (dataset.get('backend_args') or '://' in file + folder)
    standard = all(
        getattr(kind, name, None) is getattr(CocoDataset, name)
        for name in ('load_data_list', 'parse_data_info', 'COCOAPI')
    )
    if local and standard:
        # Which images a subset loads is not known before the host has filtered the data.
        folder_checked = folder if images and dataset.get('indices') is None else None
        filter_cfg = {} if dataset.get('test_mode') else dataset.get('filter_cfg') or {}
        unusual: list[str] | None = None if warnings is None else []
        for problem in _file_problems(file, folder_checked, list(classes), filter_cfg, unusual):
            yield f'{file} ({where}): {problem}'
        if warnings is not None:
            warnings += [f'{file} ({where}): {each}' for each in unusual or ()]


def _file_problems(
    file: str,
    folder: str | None,
    classes: list[str],
    filter_cfg: Mapping[str, Any],
    warnings: list[str] | None,
) -> Iterator[str]:
    encoded = Path(file).read_bytes()
    if problem := mark_problem(encoded, file):
        yield problem
    try:
        content = parse_without_polygons(decode_text(encoded, file))
        categories = _entries(content, 'categories', ('id', 'name'))
        images = _entries(content, 'images', ('id', 'file_name'))
        if unnamed := [image['id'] for image in images if not isinstance(image['file_name'], str)]:
            raise ValueError(f'image {join_first(unnamed)}: file_name is not a text')
        annotations = _annotations(content)
        # The host skips an ignored annotation as soon as it is indexed.
        counted = [each for each in annotations if not each.get('ignore')]
        unknown_images = _unlisted(counted, 'image_id', images)
        unknown_categories = _unlisted(counted, 'category_id', categories)
        shared = _shared_ids(images)
    except (ValueError, TypeError) as error:  # A TypeError is an unhashable id.
        yield f"not in COCO's format: {error}"
        return
    names = [category['name'] for category in categories]
    used = [name for name in names if name in classes]
    if absent := [name for name in classes if name not in names]:
        yield f'no category is called {join_first(absent)}; there are {join_first(names)}'
    elif classes != used:
        yield from _order_problems(categories, annotations, classes)
    with_objects = _with_objects(images, annotations, categories, used)
    if folder:
        loaded = with_objects if filter_cfg.get('filter_empty_gt') else images
        if absent := list(_absent(folder, [image['file_name'] for image in loaded])):
            slashes = any('\\' in name for name in absent)
            yield (
                f'{len(absent)} of {len(loaded)} images are not in {folder}: {join_first(absent)}'
                + slashes * '; \\ separates folders only on Windows: write / in file_name'
            )
    if unknown_images:
        ids = sorted(map(json.dumps, unknown_images))
        yield f'there are annotations of images that it does not list, image_id {join_first(ids)}'
    if shared:
        yield (
            f'image {join_first(shared)}: several files have this id; the host keeps the last '
            'and assigns the objects of all to it; '
            'give each image an id of its own, in its annotations too'
        )
    sizes = [*size_problems(images)]
    yield from sizes
    if not sizes:
        left, reasons = filtered_images(images, with_objects, filter_cfg)
        if left == 0:
            yield f'no image is left for training: {reasons}'
        elif reasons and warnings is not None:
            warnings.append(f'the host leaves images out of training: {reasons}')
    known = {category['id'] for category in categories if category['name'] in used}
    objects = [each for each in counted if each['category_id'] in known]
    yield from box_problems(images, objects)
    if warnings is not None:
        warnings += box_warnings(images, objects)
    yield from by_problem(
        (
            each,
            f'no category has the id {json.dumps(each["category_id"])}, so the host silently drops '
            'the object; correct category_id, or add the category',
        )
        for each in counted
        if each['category_id'] in unknown_categories
    )
    yield from by_problem((each, _box_problem(each)) for each in counted)


def _order_problems(
    categories: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
) -> Iterator[str]:
    """Yield why the categories do not have the classes' order, or share a name."""
    ids: dict[str, list[Any]] = {
        name: [] for each in categories if (name := each['name']) in classes
    }
    for each in categories:
        if each['name'] in ids:
            ids[each['name']].append(each['id'])
    counted = {each['category_id'] for each in annotations}
    for name, those in ids.items():
        if len(those) > 1:
            unused = [each for each in those if each not in counted]
            # Where no image of the split shows the class, the last one is kept.
            unused = unused[: len(those) - 1]
            advice = (
                f'no annotation has {join_first(unused)}, so delete it from categories'
                if unused
                else 'rename them, or give one of them to all annotations and delete the others'
            )
            yield (
                f'the categories {join_first(those)} are all called {name}, and the host takes '
                f'each for a class; {advice}'
            )
    if list(classes) != list(ids):
        yield f'its order gives the classes their numbers: write them as {tuple(ids)}'


def parse_without_polygons(text: str) -> Any:
    """Parse a COCO annotation file, with each polygon mask replaced by 0.

    The polygons are most of a file and take most of the time to parse. An unescaped quote before
    `segmentation` can only open a string, and what is replaced is valid JSON: the result, or the
    syntax error, is the one of the whole text but for the polygons.

    Args:
        text: Content of the file.

    Raises:
        ValueError: If the text is not valid JSON.
    """
    try:
        return json.loads(_POLYGONS.sub('"segmentation":0', text))
    except ValueError:
        return json.loads(text)  # Raises again, with the position in the whole text.


def _entries(content: Any, key: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return the list under a top-level key.

    Raises:
        ValueError: If it is missing or empty, or an entry lacks one of the fields.
    """
    entries = content.get(key) if isinstance(content, dict) else None
    if not (isinstance(entries, list) and entries and all(map(_has(fields), entries))):
        raise ValueError(f'it has no list of {key}, each with {" and ".join(fields)}')
    return entries


def _annotations(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the annotations; a file without the key, as for a test set, has none.

    Raises:
        ValueError: If they are not a list, or one lacks a field that pycocotools indexes.
    """
    annotations = content.get('annotations', [])
    if not isinstance(annotations, list):
        raise ValueError('its annotations are not a list')
    if bad := [str(i) for i, each in enumerate(annotations) if not _has(_INDEXED)(each)]:
        raise ValueError(
            f'annotations need the fields {", ".join(_INDEXED)}; the list entries '
            f'{join_first(bad)} (from 0) lack some'
        )
    return annotations


def _has(fields: Sequence[str]) -> Callable[[Any], bool]:
    wanted = set(fields)
    return lambda entry: isinstance(entry, dict) and entry.keys() >= wanted


def _unlisted(
    annotations: Sequence[Mapping[str, Any]], field: str, entries: Sequence[Mapping[str, Any]]
) -> set[Any]:
    """Return the ids under a field of the annotations that no entry has (1.0 equals 1)."""
    return {each[field] for each in annotations} - {entry['id'] for entry in entries}


def _box_problem(annotation: Mapping[str, Any]) -> str | None:
    return box_problem(annotation['bbox']) if 'bbox' in annotation else 'no bbox; add it'


def _with_objects(
    images: Sequence[dict[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the images that mmdet's `filter_empty_gt` keeps."""
    ids = {category['id'] for category in categories if category['name'] in classes}
    kept = {each['image_id'] for each in annotations if each['category_id'] in ids}
    return [image for image in images if image['id'] in kept]


def _shared_ids(images: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return ids used by more than one file; the same image listed twice does no harm."""
    files: dict[Any, set[str]] = {}
    for image in images:
        files.setdefault(image['id'], set()).add(image['file_name'])
    return [number for number, names in files.items() if len(names) > 1]


def _absent(folder: str, files: list[str]) -> Iterator[str]:
    """Yield the files that are not in the folder; each folder is listed only once."""
    listings: dict[str, set[str]] = {}
    for file in files:
        parent, name = os.path.split(os.path.join(folder, file))
        if parent not in listings:
            listings[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        if name not in listings[parent]:
            yield file
