"""Reads annotation files in COCO's format, and finds what does not fit the config or the images.

mmdet itself silently drops or swaps classes, and stops at a missing image only when it loads it.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from mmcv.transforms import LoadAnnotations
from numpy.typing import NDArray

from ..config import ConfigView, Entry
from ..errors import join_first
from .listing import decode_text, mark_fault
from .masks import mask_extent, scored_mask_fault
from .problem import Fault, Problem

# Fields that pycocotools reads from every annotation when it builds its index.
_INDEXED = ('id', 'image_id', 'category_id')
_NUMBER = (int, float)
# A polygon mask in valid JSON, numbers without exponents; the parser sees all others.
_SPACE = r'[ \t\r\n]*'
_DIGITS = r'-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?'
_POLYGON = rf'\[{_SPACE}{_DIGITS}(?:{_SPACE},{_SPACE}{_DIGITS})*{_SPACE}\]'
_POLYGONS = re.compile(
    rf'(?<!\\)"segmentation"{_SPACE}:{_SPACE}'
    rf'\[{_SPACE}{_POLYGON}(?:{_SPACE},{_SPACE}{_POLYGON})*{_SPACE}\]'
)
# Pixels by which rounding may move a box over the edge of its image, or away from its mask.
_TOLERANCE = 2
# Boxes written as corners end far outside: by this share of a side, in more than a few boxes.
_FAR, _FEW = 0.1, 3
# Masks that are compared with their boxes, evenly spaced over the file.
_COMPARED = 2000


class CocoFile(NamedTuple):
    """The lists of an annotation file; empty if it is not in COCO's format.

    Attributes:
        images: Its images.
        categories: Its categories.
        annotations: Its annotations.
        faults: What is wrong with the file as a text.
    """

    images: Sequence[Mapping[str, Any]]
    categories: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    faults: Sequence[Fault]


def coco_problems(
    view: ConfigView, splits: Sequence[str], thorough: bool = False
) -> Iterator[Problem]:
    """Yield what is wrong with the annotation files of mmdet's data sets and evaluators.

    The files and folders must exist (see `check_present`). Files on other back ends, and data sets
    that load or parse annotations with code of their own, are not checked.

    Args:
        view: The config; nothing happens unless its host is mmdet.
        splits: Which of `train`, `val` and `test` to check.
        thorough: Whether to parse polygons too. Otherwise, this looks for missing images, which
            loading all samples would find as well.
    """
    if view.host != 'mmdet':
        return
    read = lru_cache(maxsize=1)(read_coco)  # A loader and its evaluator mostly share a file.
    for split in splits:
        loaded: dict[str, tuple[str, ...]] = {}
        for dataset in view.datasets(split):
            path, classes = _annotation_file(dataset.entry), class_names(dataset.entry)
            if path and classes:
                loaded[os.path.realpath(path)] = classes
                masks = any(
                    step.is_a(LoadAnnotations) and step.settings.get('with_mask')
                    for step in dataset.steps
                )
                judge = _Judge(read(path, thorough and masks), dataset.entry.field, path)
                yield from judge.text()
                yield from judge.loaded(dataset.entry.settings, classes, masks, not thorough)
        for evaluator in view.evaluators(split):
            if path := _scored_file(evaluator):
                masks = thorough and 'segm' in evaluator.settings.get('metric', 'bbox')
                judge = _Judge(read(path, masks), evaluator.field, path)
                if os.path.realpath(path) not in loaded:  # Else the loader's checks do it.
                    yield from judge.text()
                    yield from judge.boxes(judge.coco.annotations, only_inside=False)
                    yield from judge.sizes() if masks else ()
                names = {name for each in loaded.values() for name in each}
                yield from judge.scored(names, masks)


def read_coco(path: str, polygons: bool = False) -> CocoFile:
    """Read an annotation file.

    Args:
        path: Path of the file.
        polygons: Whether to parse polygon masks, which take most of the time; otherwise each
            becomes 0.
    """
    encoded = Path(path).read_bytes()
    faults = [fault] if (fault := mark_fault(encoded, path)) else []
    try:
        text = decode_text(encoded, path)
        content = json.loads(text) if polygons else parse_without_polygons(text)
        categories = _entries(content, 'categories', ('id', 'name'))
        images = _entries(content, 'images', ('id', 'file_name'))
        if unnamed := [image['id'] for image in images if not isinstance(image['file_name'], str)]:
            raise ValueError(f'image {join_first(unnamed)}: file_name is not a text')
        annotations = _annotations(content)
        for key in _INDEXED:
            frozenset(map(itemgetter(key), annotations))  # A list as an id is a TypeError.
        frozenset(each['id'] for each in (*images, *categories))
    except (ValueError, TypeError) as error:
        return CocoFile((), (), (), [*faults, Fault(f"not in COCO's format: {error}", '')])
    return CocoFile(images, categories, annotations, faults)


def parse_without_polygons(text: str) -> Any:
    """Parse a COCO annotation file, with each polygon mask replaced by 0.

    The polygons are most of a file and take most of the time to parse. An unescaped quote before
    `segmentation` can only open a string, and what is replaced is valid JSON, so the result or the
    syntax error is that of the whole text, except for the polygons.

    Args:
        text: Content of the file.

    Raises:
        ValueError: If the text is not valid JSON.
    """
    try:
        return json.loads(_POLYGONS.sub('"segmentation":0', text))
    except ValueError:
        return json.loads(text)  # Raises again, with the position in the whole text.


def class_names(dataset: Entry) -> tuple[str, ...]:
    """Return the classes that a data set reads from its settings; empty if it reads none there.

    Args:
        dataset: The data set.
    """
    try:
        names = dataset.kind._load_metainfo(dict(dataset.settings.get('metainfo') or {}))['classes']
    except Exception:  # Data sets of other base classes, and names that the host refuses too.
        return ()
    return tuple(names) if isinstance(names, (list, tuple)) else ()


def _annotation_file(dataset: Entry) -> str | None:
    """Return the local file of a data set that mmdet's own code reads as COCO's format."""
    from mmdet.datasets import CocoDataset

    standard = dataset.is_a(CocoDataset) and all(
        getattr(dataset.kind, name) is getattr(CocoDataset, name)
        for name in ('load_data_list', 'parse_data_info', 'COCOAPI')
    )
    settings = dataset.settings
    file = os.path.join(settings.get('data_root') or '', settings.get('ann_file') or '')
    remote = settings.get('backend_args') or '://' in f'{file}{settings.get("data_prefix")}'
    return file if standard and not remote and os.path.isfile(file) else None


def _scored_file(evaluator: Entry) -> str | None:
    """Return the local file that an evaluator compares with, if pycocotools reads it."""
    from mmdet.evaluation import CocoMetric

    settings = evaluator.settings
    file = settings.get('ann_file')
    if not evaluator.is_a(CocoMetric) or settings.get('format_only') or not isinstance(file, str):
        return None
    remote = settings.get('backend_args') or '://' in file
    return file if not remote and os.path.isfile(file) else None


class _Judge:
    """Compares an annotation file with one use of it in the config.

    Args:
        coco: The file.
        field: Field of the data set or evaluator.
        path: Path of the file.
    """

    def __init__(self, coco: CocoFile, field: str, path: str) -> None:
        self.coco = coco
        self._field = field
        self._path = path
        # The host skips an ignored annotation as soon as it is indexed.
        self._counted = [each for each in coco.annotations if not each.get('ignore')]

    def _problem(self, found: str, remedy: str, is_error: bool = True) -> Problem:
        severity: Literal['error', 'warning'] = 'error' if is_error else 'warning'
        return Problem(self._field, found, remedy, self._path, severity)

    def _named(self, kind: str, ids: Sequence[Any], found: str, remedy: str) -> Iterator[Problem]:
        """Yield a problem of the entries with these ids, if there are any."""
        if ids:
            more = f' ({len(ids)} in all)' if len(ids) > 8 else ''
            yield self._problem(f'{kind} {join_first(ids)}{more}: {found}', remedy)

    def text(self) -> Iterator[Problem]:
        """Yield what is wrong with the file as a text."""
        yield from (self._problem(*fault) for fault in self.coco.faults)

    def loaded(
        self, settings: Mapping[str, Any], classes: Sequence[str], masks: bool, find_images: bool
    ) -> Iterator[Problem]:
        """Yield what a data set of mmdet cannot load, or would load wrongly."""
        images, categories = self.coco.images, self.coco.categories
        if not images:
            return
        yield from self._classes(classes)
        known = {category['id'] for category in categories if category['name'] in classes}
        filters = {} if settings.get('test_mode') else settings.get('filter_cfg') or {}
        shown = {each['image_id'] for each in self.coco.annotations if each['category_id'] in known}
        only_shown = filters.get('filter_empty_gt')
        kept = [each for each in images if each['id'] in shown or not only_shown]
        # Which images a subset loads is not known before the host has filtered the data.
        if find_images and settings.get('indices') is None:
            prefix = (settings.get('data_prefix') or {}).get('img') or ''
            folder = os.path.join(settings.get('data_root') or '', prefix)
            yield from self._missing(folder, [image['file_name'] for image in kept])
        listed = {image['id'] for image in images}
        if unknown := {each['image_id'] for each in self._counted} - listed:
            yield self._problem(
                'there are annotations of images that it does not list, image_id '
                f'{join_first(sorted(map(json.dumps, unknown)))}',
                'list the images, or remove the annotations',
            )
        yield from self._shared_ids()
        unsized = [*self.sizes()]
        yield from unsized or self._filtered(kept, filters)
        objects = [each for each in self._counted if each['category_id'] in known]
        if objects and all(each.get('iscrowd') for each in objects):
            yield self._problem(
                f'all {len(objects)} objects have iscrowd=1, so loss and score leave them out',
                'set iscrowd=0 for single objects',
            )
        yield from self._edges(objects)
        if masks:
            yield from self._placement(objects)
        categorised = {each['id'] for each in categories}
        for category in dict.fromkeys(each['category_id'] for each in self._counted):
            if category not in categorised:
                yield from self._named(
                    'annotation',
                    [each['id'] for each in self._counted if each['category_id'] == category],
                    f'no category has the id {json.dumps(category)}, so the host silently drops '
                    'the object',
                    'correct category_id, or add the category',
                )
        yield from self.boxes(self._counted, only_inside=True)

    def scored(self, classes: Collection[str], masks: bool) -> Iterator[Problem]:
        """Yield what pycocotools cannot score, or scores wrongly.

        Args:
            classes: Classes that are scored; empty if they are unknown.
            masks: Whether masks are compared.
        """
        names = {each['id']: each['name'] for each in self.coco.categories}
        scored = [
            each
            for each in self.coco.annotations
            if not classes or names.get(each['category_id']) in classes
        ]
        absent = [each['id'] for each in scored if 'iscrowd' not in each]
        yield from self._named('annotation', absent, 'no iscrowd', 'add it')
        numbers = [(each['id'], _stored_id(each['id'])) for each in scored]
        texts = [identity for identity, number in numbers if number is None]
        yield from self._named(
            'annotation', texts, 'the evaluation cannot store the id', 'write numbers from 1'
        )
        if any(number == 0 for _, number in numbers):
            yield self._problem(
                'annotation 0: the evaluation counts the object with the id 0 as never found, '
                'which lowers AP',
                'number the annotations from 1: add 1 to the id of each',
            )
        faults: dict[Fault, list[Any]] = {}
        sizes = _sizes(self.coco.images, scored if masks else [])
        for each, (width, height) in zip(scored, sizes, strict=False):
            if not np.isnan(width):
                mask = each.get('segmentation')
                if fault := scored_mask_fault(mask, int(height), int(width)):
                    faults.setdefault(fault, []).append(each['id'])
        for fault, ids in faults.items():
            yield from self._named('annotation', ids, *fault)

    def _classes(self, classes: Sequence[str]) -> Iterator[Problem]:
        """Yield how the categories differ from the classes."""
        names = [category['name'] for category in self.coco.categories]
        if absent := [name for name in classes if name not in names]:
            yield self._problem(
                f'no category is called {join_first(absent)}; there are {join_first(names)}',
                'write metainfo.classes as there',
            )
            return
        ids: dict[str, list[Any]] = {name: [] for name in names if name in classes}
        for each in self.coco.categories:
            if each['name'] in ids:
                ids[each['name']].append(each['id'])
        used = {each['category_id'] for each in self.coco.annotations}
        for name, those in ids.items():
            if len(those) > 1:
                # If no image of the split shows the class, the last category is kept.
                unused = [each for each in those if each not in used][: len(those) - 1]
                yield self._problem(
                    f'the categories {join_first(those)} are all called {name}, and the host takes '
                    'each for a class',
                    f'no annotation has {join_first(unused)}, so delete it from categories'
                    if unused
                    else 'rename them, or give one of them to all annotations and delete the rest',
                )
        if list(classes) != list(ids):
            yield self._problem(
                f'metainfo.classes is ({join_first(classes)}), but the order in the file gives the '
                'classes their numbers',
                f'write them as {tuple(ids)}',
            )

    def _missing(self, folder: str, files: Sequence[str]) -> Iterator[Problem]:
        """Yield which images are not there; each folder is listed only once."""
        listings: dict[str, set[str]] = {}
        missing = []
        for file in files:
            parent, name = os.path.split(os.path.join(folder, file))
            if parent not in listings:
                listings[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
            if name not in listings[parent]:
                missing.append(file)
        if missing:
            yield self._problem(
                f'{len(missing)} of {len(files)} images are not in {folder}: {join_first(missing)}',
                'write / in file_name: \\ separates folders only on Windows'
                if any('\\' in name for name in missing)
                else 'put them there, or set data_root and data_prefix.img',
            )

    def _shared_ids(self) -> Iterator[Problem]:
        """Yield ids used by more than one file; the same image listed twice does no harm."""
        files: dict[Any, set[str]] = {}
        for image in self.coco.images:
            files.setdefault(image['id'], set()).add(image['file_name'])
        yield from self._named(
            'image',
            [number for number, names in files.items() if len(names) > 1],
            'several files have this id, and the host assigns the objects of all to the last',
            'give each image an id of its own, in its annotations too',
        )

    def sizes(self) -> Iterator[Problem]:
        """Yield which images have no size; the host stops at these with a bare `KeyError`."""
        for side in ('height', 'width'):
            images = self.coco.images
            absent = [image['id'] for image in images if not isinstance(image.get(side), _NUMBER)]
            yield from self._named('image', absent, f'no {side}', 'add it, in pixels')

    def _filtered(
        self, kept: Sequence[Mapping[str, Any]], filters: Mapping[str, Any]
    ) -> Iterator[Problem]:
        """Yield how many images mmdet leaves out of training, and how to keep them."""
        side, total = filters.get('min_size', 0), len(self.coco.images)
        shorter = [min(image['width'], image['height']) for image in kept]
        empty, small = total - len(kept), sum(each < side for each in shorter)
        reasons, remedies = [], []
        if empty:
            reasons.append(f'{empty} of {total} images have no object of the classes')
            remedies.append('filter_cfg.filter_empty_gt=False to train on them as background')
        if small:
            reasons.append(
                f'{small} of {total} images have a shorter side below filter_cfg.min_size={side}'
            )
            remedies.append(f'filter_cfg.min_size={min(shorter)} to keep them')
        if reasons:
            none = empty + small == total
            found = 'no image is left for training' if none else 'images are left out of training'
            yield self._problem(
                f'{found}: {"; ".join(reasons)}', f'set {", and ".join(remedies)}', is_error=none
            )

    def boxes(
        self, annotations: Sequence[Mapping[str, Any]], only_inside: bool
    ) -> Iterator[Problem]:
        """Yield boxes and areas that the host cannot read.

        NaN and infinity, which Python's JSON parser accepts, make the host drop a box or stretch it
        to the edge of the image. A loader reads the area only of boxes that overlap their image.
        """
        boxes, sizes = _boxes(annotations), _sizes(self.coco.images, annotations)
        with np.errstate(invalid='ignore'):
            low, high = np.maximum(boxes[:, :2], 0), boxes[:, :2] + boxes[:, 2:]
            overlap = (np.minimum(high, sizes) > low).all(axis=1)
        whole = ~np.isnan(boxes[:, 0])
        bad = [annotations[index] for index in np.flatnonzero(~whole)]
        read = [annotations[index] for index in np.flatnonzero(overlap if only_inside else whole)]
        unreadable = [each for each in read if not isinstance(each.get('area'), _NUMBER)]
        for entries, key, found, remedy in (
            (bad, 'bbox', 'its box is not four finite numbers', 'correct or remove it'),
            (unreadable, 'area', 'its area is not a number', 'write it in square pixels'),
        ):
            absent = [each['id'] for each in entries if key not in each]
            yield from self._named('annotation', absent, f'no {key}', 'add it')
            wrong = [each['id'] for each in entries if key in each]
            yield from self._named('annotation', wrong, found, remedy)

    def _edges(self, objects: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
        """Yield that boxes are written as corners, or mostly cross the edge of their image."""
        rows = np.hstack([_boxes(objects), _sizes(self.coco.images, objects)])
        start, side, size = np.split(rows[~np.isnan(rows).any(axis=1)], 3, axis=1)
        total = len(start)
        beyond = start + side - size
        crossing = int((beyond > _TOLERANCE).any(axis=1).sum())
        far = int((beyond > np.maximum(_TOLERANCE, _FAR * size)).any(axis=1).sum())
        as_corners = ((side > start) & (side <= size + _TOLERANCE)).all()
        if total >= _FEW and far > 0.5 * total and as_corners:
            yield self._problem(
                f'{far} of {total} boxes cross the edge of their image, and all fit into it as '
                'corners x1, y1, x2, y2',
                'a bbox is [x, y, width, height], so write width x2 - x1 and height y2 - y1',
            )
        elif crossing > 0.5 * total:
            yield self._problem(
                f'{crossing} of {total} boxes cross the edge of their image. This may be meant for '
                'objects that the image cuts off',
                'if not, check that a bbox is [x, y, width, height] in pixels of the image as it '
                'is',
                is_error=False,
            )

    def _placement(self, objects: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
        """Yield how many masks lie outside of their boxes.

        A box may be larger than its mask, as around the hidden part of an object.
        """
        objects = [each for each in objects if each.get('segmentation') and not each.get('iscrowd')]
        objects = objects[:: -(-len(objects) // _COMPARED) or 1]
        extents = [
            mask_extent(each['segmentation'], height, width) or (np.nan,) * 4
            for each, (width, height) in zip(
                objects, _sizes(self.coco.images, objects), strict=True
            )
        ]
        rows = np.hstack([np.array(extents).reshape(-1, 4), _boxes(objects)])
        rows = rows[(rows[:, 6:] >= 1).all(axis=1) & ~np.isnan(rows).any(axis=1)]
        low, high, start, side = np.split(rows, 4, axis=1)
        common = np.minimum(high, start + side + _TOLERANCE) - np.maximum(low, start - _TOLERANCE)
        shared = np.maximum(common, 0).prod(axis=1)
        extent = np.maximum(high - low, 1).prod(axis=1)
        outside = (shared < 0.8 * extent) & (shared < 0.5 * np.maximum(extent, side.prod(axis=1)))
        misplaced, total = int(outside.sum()), len(outside)
        if misplaced >= _FEW and misplaced > 0.05 * total:
            yield self._problem(
                f'the masks of {misplaced} of {total} objects lie outside of their boxes',
                'correct the masks: a polygon is x1, y1, x2, y2, ... in pixels of the image as it '
                'is, and run lengths go down the columns (an array of order "F" in pycocotools)',
                is_error=misplaced > 0.5 * total,
            )


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


def _boxes(annotations: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return the boxes as an array (N, 4), NaN where one is not four finite numbers."""
    rows = [each.get('bbox') for each in annotations]
    try:
        boxes = np.array(rows)
    except ValueError:  # The boxes have several lengths.
        boxes = np.empty(0)
    if boxes.dtype.kind not in 'iuf' or boxes.shape != (len(rows), 4):
        boxes = np.array([row if _is_box(row) else [np.nan] * 4 for row in rows])
    boxes = boxes.reshape(-1, 4).astype(float)
    return np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, np.nan)


def _is_box(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 4
        and all(isinstance(number, _NUMBER) and -1e300 < number < 1e300 for number in row)
    )


def _sizes(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> NDArray[np.float64]:
    """Return the width and height of each annotation's image, (N, 2); NaN if they are unknown."""
    sizes = {
        each['id']: (each['width'], each['height'])
        for each in images
        if isinstance(each.get('width'), _NUMBER) and isinstance(each.get('height'), _NUMBER)
    }
    rows = [sizes.get(each['image_id'], (np.nan, np.nan)) for each in annotations]
    return np.array(rows, float).reshape(-1, 2)


def _stored_id(identity: Any) -> float | None:
    """Return the id of an object as pycocotools stores it, or None if it cannot."""
    try:
        return float(np.array(identity, float))
    except (TypeError, ValueError):
        return None
