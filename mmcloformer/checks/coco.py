"""Checks annotation files in COCO's format: each by itself, and against its use in the config.

mmdet itself silently drops or swaps classes, and stops at a missing image only when it loads it.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import LoadAnnotations
from numpy.typing import NDArray

from ..config import ConfigView, DatasetEntry, Entry, is_in_hosts
from ..errors import join_first
from .listing import mark_fault
from .masks import mask_extent, scored_mask_fault
from .problem import Fault, Problem, Severity

_FIELDS = dict(
    images=('id', 'file_name'),
    categories=('id', 'name'),
    # pycocotools reads these from every annotation when it builds its index.
    annotations=('id', 'image_id', 'category_id'),
)
# LVIS names no files of images, and has no crowds.
_LVIS_FIELDS = _FIELDS | dict(images=('id',))
# Pixels by which rounding may move a box over the edge of its image, or away from its mask.
_TOLERANCE = 2
# Boxes written as corners end far outside: by this share of a side, in more than a few boxes.
_FAR, _FEW = 0.1, 3
# Masks that are compared with their boxes, evenly spaced over the file.
_COMPARED = 2000

_Entries = Sequence[Mapping[str, Any]]
_Array = NDArray[np.float64]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _is_box(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 4
        and all(_is_number(number) and -1e300 < number < 1e300 for number in row)
    )


class CocoFile(NamedTuple):
    """The lists of an annotation file; empty if it is not in COCO's format.

    Attributes:
        images: Its images.
        categories: Its categories.
        annotations: Its annotations.
        faults: What is wrong with the file as a text.
    """

    images: _Entries
    categories: _Entries
    annotations: _Entries
    faults: Sequence[Fault]


def coco_problems(
    view: ConfigView, splits: Sequence[str], find_images: bool = True
) -> Iterator[Problem]:
    """Yield what is wrong with the annotation files of mmdet's data sets and evaluators.

    The files and folders must exist (see `check_present`). Files on other back ends, and data sets
    that load or parse annotations with code of their own, are not checked.

    Args:
        view: The config; nothing happens unless its host is mmdet.
        splits: Which of `train`, `val` and `test` to check.
        find_images: Whether to look for missing images.
    """
    if view.host != 'mmdet':
        return
    from mmdet.evaluation import CocoMetric, LVISMetric

    read = lru_cache(maxsize=1)(read_coco)  # A loader and its evaluator mostly share a file.
    for split in splits:
        loaded: dict[str, tuple[str, ...]] = {}
        for leaf in view.datasets(split):
            dataset = leaf.entry
            path, classes = local_file(dataset), class_names(view, dataset)
            if path and classes and _is_loaded_by_mmdet(dataset):
                loaded[os.path.realpath(path)] = classes
                looks = find_images and leaf.is_local
                found = _loaded(read(path), leaf, classes, looks)
                yield from (each._replace(field=dataset.field, file=path) for each in found)
        names = [*dict.fromkeys(name for each in loaded.values() for name in each)]
        for evaluator in view.evaluators(split):
            path = local_file(evaluator)
            if path and evaluator.is_a(CocoMetric) and not evaluator.settings.get('format_only'):
                masks = 'segm' in evaluator.settings.get('metric', 'bbox')
                is_own = os.path.realpath(path) not in loaded
                is_lvis = evaluator.is_a(LVISMetric)
                coco = read_coco(path, _LVIS_FIELDS) if is_lvis else read(path)
                found = _scored(coco, names, masks, is_own, has_crowds=not is_lvis)
                yield from (each._replace(field=evaluator.field, file=path) for each in found)


def read_coco(path: str, fields: Mapping[str, Sequence[str]] = _FIELDS) -> CocoFile:
    """Read an annotation file.

    Args:
        path: Path of the file.
        fields: Fields that each entry must have, by list.
    """
    encoded = Path(path).read_bytes()
    faults = [fault] if (fault := mark_fault(encoded)) else []
    try:
        content = json.loads(encoded)
        images, categories, annotations = (
            _entries(content, key, fields[key]) for key in ('images', 'categories', 'annotations')
        )
        if unnamed := [
            each['id'] for each in images if not isinstance(each.get('file_name', ''), str)
        ]:
            raise ValueError(f'image {join_first(unnamed)}: file_name is not a text')
    except (ValueError, TypeError) as error:
        return CocoFile((), (), (), [*faults, Fault(f"not in COCO's format: {error}", '')])
    return CocoFile(images, categories, annotations, faults)


def local_file(entry: Entry) -> str | None:
    """Return the annotation file of a data set or evaluator, if it is on this machine.

    Args:
        entry: The data set or evaluator.
    """
    name = entry.settings.get('ann_file')
    if not isinstance(name, str) or entry.settings.get('backend_args'):
        return None
    file = os.path.join(entry.settings.get('data_root') or '', name)
    return file if os.path.isfile(file) else None


def class_names(view: ConfigView, dataset: Entry) -> tuple[str, ...]:
    """Return the classes of a data set; empty if the host refuses them, or finds them later.

    Args:
        view: The config.
        dataset: The data set.
    """
    built = view.build_lazily(dataset, with_names=True)
    names = built.metainfo.get('classes') if built is not None else None
    return tuple(names) if isinstance(names, (list, tuple)) else ()


def _category_faults(coco: CocoFile, classes: Sequence[str]) -> Iterator[Fault]:
    """Yield how the categories of a file differ from the classes of a data set."""
    names = [category['name'] for category in coco.categories]
    if absent := [name for name in classes if name not in names]:
        yield Fault(
            f'no category is called {join_first(absent)}; there are {join_first(names) or "none"}',
            'write metainfo.classes as there',
        )
        return
    counts = Counter(name for name in names if name in classes)
    if repeated := [name for name, count in counts.items() if count > 1]:
        yield Fault(
            f'several categories are called {join_first(repeated)}, and the host takes each for a '
            'class',
            'give one of them to all annotations, and delete the others from categories',
        )
    if tuple(counts) != tuple(classes):
        yield Fault(
            f'metainfo.classes is ({join_first(classes)}), but the order in the file gives the '
            'classes their numbers',
            f'write them as {tuple(counts)}',
        )


def _is_loaded_by_mmdet(dataset: Entry) -> bool:
    from mmdet.datasets import CocoDataset

    return dataset.is_a(CocoDataset) and all(
        getattr(dataset.kind, name) is getattr(CocoDataset, name)
        for name in ('load_data_list', 'parse_data_info', 'COCOAPI')
    )


def _entries(content: Any, key: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return the list under a top-level key; annotations may be absent, as for a test set.

    Raises:
        ValueError: If it is missing, has no images, or an entry lacks one of the fields.
        TypeError: If one of the fields cannot be an id, such as a list.
    """
    default: Any = [] if key == 'annotations' else None
    entries = content.get(key, default) if isinstance(content, dict) else None
    if not isinstance(entries, list) or (key == 'images' and not entries):
        raise ValueError(f'it has no list of {key}')
    bad = [
        str(index)
        for index, each in enumerate(entries)
        if not (isinstance(each, dict) and all(name in each for name in fields))
    ]
    if bad:
        raise ValueError(
            f'{key} need the fields {", ".join(fields)}; the list entries {join_first(bad)} '
            '(from 0) lack some'
        )
    for name in fields:
        frozenset(map(itemgetter(name), entries))
    return entries


def _of(
    kind: str,
    entries: Iterable[Mapping[str, Any]],
    found: str,
    remedy: str,
    severity: Severity = 'error',
) -> Iterator[Problem]:
    """Yield one problem of all these images or annotations, if there are any."""
    if ids := [each['id'] for each in entries]:
        more = f' ({len(ids)} in all)' if len(ids) > 8 else ''
        yield Problem('', f'{kind} {join_first(ids)}{more}: {found}', remedy, severity=severity)


def _loaded(
    coco: CocoFile, leaf: DatasetEntry, classes: Sequence[str], find_images: bool
) -> Iterator[Problem]:
    """Yield what a data set of mmdet cannot load, or would load wrongly."""
    images, categories, annotations, faults = coco
    settings = leaf.entry.settings
    yield from (Problem('', *fault) for fault in faults)
    if not images:
        return
    # Images for semi-supervised training need no categories.
    if annotations or settings.get('test_mode'):
        yield from (Problem('', *fault) for fault in _category_faults(coco, classes))
    # The host skips an ignored annotation as soon as it is indexed.
    counted = [each for each in annotations if not each.get('ignore')]
    must_differ = getattr(leaf.entry.kind, 'ANN_ID_UNIQUE', False)
    yield from _id_problems(coco, counted, must_differ)
    boxes, sizes = _boxes(counted), _sizes(images, counted)
    low, high = np.maximum(boxes[:, :2], 0), boxes[:, :2] + boxes[:, 2:]
    overlaps = np.all(np.minimum(high, sizes) > low, axis=1)
    # The host drops a box outside of its image before it reads the area.
    yield from _unreadable(images, counted, [*compress(counted, overlaps)])
    known = {category['id'] for category in categories if category['name'] in classes}
    is_object = np.array([each['category_id'] in known for each in counted], bool)
    objects = [*compress(counted, is_object)]
    areas = np.array(
        [area if _is_number(area := each.get('area')) else np.nan for each in counted], float
    )
    is_read = ~np.isnan(boxes[:, 0]) & ~np.isnan(sizes[:, 0])
    is_dropped = is_read & (~overlaps | (areas <= 0) | (boxes[:, 2:] < 1).any(axis=1))
    loaded = [*compress(counted, is_object & ~is_dropped)]
    is_all = leaf.split == 'train' and '.datasets.' not in leaf.entry.field and not loaded
    yield from _of(
        'annotation',
        compress(counted, is_object & is_dropped),
        'the host drops the object: its area is not above 0, or its box is less than a pixel wide '
        'or high, or outside of the image',
        'correct them; a bbox is [x, y, width, height] in pixels',
        'error' if is_all else 'warning',
    )
    if objects and all(each.get('iscrowd') for each in objects):
        yield Problem(
            '',
            f'all {len(objects)} objects have iscrowd=1, so loss and score leave them out',
            'set iscrowd=0 for single objects',
        )
    yield from _edges(boxes[is_object], sizes[is_object])
    kept = list(images)
    if (filters := settings.get('filter_cfg')) and not settings.get('test_mode'):
        shown = {each['image_id'] for each in annotations if each['category_id'] in known}
        kept = [*_unfiltered(images, shown, filters)]
        if not kept:
            yield Problem(
                '',
                f'all {len(images)} images are left out of training by '
                f'filter_cfg={dict(filters)}: they have no object of the classes, or are small',
                'set filter_cfg=None to keep them',
            )
    # Which images a subset loads is not known before the host has filtered the data.
    is_whole = settings.get('indices') is None
    ids = {each['id'] for each in kept} if is_whole else set()
    for step in leaf.steps:
        if step.is_a(LoadAnnotations) and step.settings.get('with_mask'):
            if is_in_hosts(step.kind):
                found = [each for each in loaded if each['image_id'] in ids]
                yield from _mask_problems(step.settings, found)
            yield from _placement(images, objects)
    if find_images and is_whole:
        prefix = (settings.get('data_prefix') or {}).get('img') or ''
        folder = os.path.join(settings.get('data_root') or '', prefix)
        yield from _missing(folder, [each['file_name'] for each in kept])


def _id_problems(coco: CocoFile, counted: _Entries, must_differ: bool) -> Iterator[Problem]:
    """Yield which ids are used twice or do not exist.

    Args:
        coco: The annotation file.
        counted: The annotations that the host reads.
        must_differ: Whether the host refuses annotations with the same id.
    """
    images, categories, annotations, _ = coco
    files: dict[Any, set[str]] = {}
    for image in images:
        files.setdefault(image['id'], set()).add(image['file_name'])
    yield from _of(
        'image',
        [dict(id=number) for number, names in files.items() if len(names) > 1],
        'several files have this id, and the host assigns the objects of all to the last',
        'give each image an id of its own, in its annotations too',
    )
    for key, listed in (
        ('image_id', files),
        ('category_id', {each['id'] for each in categories}),
    ):
        yield from _of(
            'annotation',
            [each for each in counted if each[key] not in listed],
            f'its {key} is not in the list, so the host silently drops the object',
            f'correct {key}, or add it to the list',
        )
    if must_differ:
        numbers = Counter(each['id'] for each in annotations if each['image_id'] in files)
        yield from _of(
            'annotation',
            [dict(id=number) for number, count in numbers.items() if count > 1],
            'several have this id, which the host refuses',
            'number the annotations from 1, in a file that was merged too',
        )


def _unfiltered(
    images: _Entries, shown: Collection[Any], filters: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Yield the images that `filter_cfg` leaves, given the ids of those with objects."""
    # An image without a size is reported by itself.
    small = (_sizes(images, images, 'id') < filters.get('min_size', 0)).any(axis=1)
    for image, is_small in zip(images, small, strict=True):
        if not is_small and (image['id'] in shown or not filters.get('filter_empty_gt')):
            yield image


def _mask_problems(loading: Mapping[str, Any], objects: _Entries) -> Iterator[Problem]:
    """Yield which objects have no mask, or one that the loading step ignores."""
    masks = [each.get('segmentation') for each in objects]
    yield from _of(
        'annotation',
        [each for each, mask in zip(objects, masks, strict=True) if not mask],
        'it has no mask (segmentation), which the loading step needs',
        'add it, or set with_mask=False for a model without masks',
    )
    if not loading.get('poly2mask', True):
        yield from _of(
            'annotation',
            [
                each
                for each, mask in zip(objects, masks, strict=True)
                if isinstance(mask, Mapping) and not each.get('iscrowd')
            ],
            'the host ignores run lengths where the loading step has poly2mask=False',
            'remove poly2mask, or write the masks as polygons',
            'warning',
        )


def _scored(
    coco: CocoFile, classes: Sequence[str], masks: bool, is_own: bool, has_crowds: bool
) -> Iterator[Problem]:
    """Yield what pycocotools cannot score, or scores wrongly.

    Args:
        coco: The file of the evaluator.
        classes: Classes that are scored; empty if they are unknown.
        masks: Whether masks are compared.
        is_own: Whether no data set reads the file, so that all of it is to be checked.
        has_crowds: Whether the evaluation reads `iscrowd`.
    """
    if is_own:
        yield from (Problem('', *fault) for fault in coco.faults)
        if coco.images:
            yield from (Problem('', *fault) for fault in _category_faults(coco, classes))
        images = coco.images if masks else ()
        yield from _unreadable(images, coco.annotations, coco.annotations)
    names = {each['id']: each['name'] for each in coco.categories}
    scored = [
        each
        for each in coco.annotations
        if not classes or names.get(each['category_id']) in classes
    ]
    absent = [each for each in scored if has_crowds and 'iscrowd' not in each]
    yield from _of('annotation', absent, 'its iscrowd is missing', 'add it')
    try:
        # pycocotools stores the ids in an array of zeros, and 0 means that nothing was found.
        has_zero = 0 in np.array([each['id'] for each in scored], float)
    except (TypeError, ValueError) as error:
        found = f'the evaluation cannot store the ids of the annotations ({error})'
        yield Problem('', found, 'write numbers from 1')
    else:
        if has_zero:
            yield Problem(
                '',
                'annotation 0: the evaluation counts the object with the id 0 as never found, '
                'which lowers AP',
                'number the annotations from 1: add 1 to the id of each',
            )
    if masks:
        wrong: dict[Fault, list[Mapping[str, Any]]] = {}
        for each, (width, height) in zip(scored, _sizes(coco.images, scored), strict=True):
            if not np.isnan(width):
                fault = scored_mask_fault(each.get('segmentation'), int(height), int(width))
                if fault:
                    wrong.setdefault(fault, []).append(each)
        for fault, entries in wrong.items():
            yield from _of('annotation', entries, *fault)


def _unreadable(images: _Entries, annotations: _Entries, measured: _Entries) -> Iterator[Problem]:
    """Yield the fields that the host or pycocotools cannot read.

    Args:
        images: The images whose size is read.
        annotations: The annotations whose box is read. NaN and infinity, which the JSON parser
            accepts, make the host drop it or stretch it to the edge of the image.
        measured: The annotations whose area is read.
    """
    for kind, entries, key, is_good, wanted in (
        ('image', images, 'height', _is_number, 'a number of pixels'),
        ('image', images, 'width', _is_number, 'a number of pixels'),
        ('annotation', annotations, 'bbox', _is_box, 'four finite numbers'),
        ('annotation', measured, 'area', _is_number, 'a number of square pixels'),
    ):
        bad = [each for each in entries if not is_good(each.get(key))]
        yield from _of(kind, bad, f'its {key} is not {wanted}', 'add or correct it')


def _missing(folder: str, files: Sequence[str]) -> Iterator[Problem]:
    """Yield which images are not there; each folder is listed only once, URLs are left out."""
    listings: dict[str, set[str]] = {}
    missing = []
    for file in files:
        path = os.path.join(folder, file)
        scheme, mark, _ = path.partition('://')
        if mark and os.sep not in scheme:
            continue
        parent, name = os.path.split(path)
        if parent not in listings:
            listings[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        if name not in listings[parent]:
            missing.append(file)
    if missing:
        yield Problem(
            '',
            f'{len(missing)} of {len(files)} images are not in {folder}: {join_first(missing)}',
            'put them there, or set data_root and data_prefix.img; '
            'in file_name, write / between folders, not \\',
        )


def _edges(boxes: _Array, sizes: _Array) -> Iterator[Problem]:
    """Yield that boxes are written as corners, or mostly cross the edge of their image."""
    whole = ~np.isnan(boxes[:, 0]) & ~np.isnan(sizes[:, 0])
    start, side, size = boxes[whole, :2], boxes[whole, 2:], sizes[whole]
    total = len(size)
    beyond = start + side - size
    crossing = int((beyond > _TOLERANCE).any(axis=1).sum())
    far = int((beyond > np.maximum(_TOLERANCE, _FAR * size)).any(axis=1).sum())
    as_corners = ((side > start) & (side <= size + _TOLERANCE)).all()
    if total >= _FEW and far > 0.5 * total and as_corners:
        yield Problem(
            '',
            f'{far} of {total} boxes cross the edge of their image, and all fit into it as corners '
            'x1, y1, x2, y2',
            'a bbox is [x, y, width, height], so write width x2 - x1 and height y2 - y1',
        )
    elif crossing > 0.5 * total:
        yield Problem(
            '',
            f'{crossing} of {total} boxes cross the edge of their image. This may be meant for '
            'objects that the image cuts off',
            'if not, check that a bbox is [x, y, width, height] in pixels of the image as it is',
            severity='warning',
        )


def _placement(images: _Entries, objects: _Entries) -> Iterator[Problem]:
    """Yield how many masks lie outside of their boxes.

    A box may be larger than its mask, as around the hidden part of an object.
    """
    objects = [each for each in objects if each.get('segmentation') and not each.get('iscrowd')]
    objects = objects[:: -(-len(objects) // _COMPARED) or 1]
    extents = [
        mask_extent(each['segmentation'], height, width) or (np.nan,) * 4
        for each, (width, height) in zip(objects, _sizes(images, objects), strict=True)
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
        yield Problem(
            '',
            f'the masks of {misplaced} of {total} objects lie outside of their boxes',
            'correct the masks: a polygon is x1, y1, x2, y2, ... in pixels of the image as it is, '
            'and run lengths go down the columns (an array of order "F" in pycocotools)',
            severity='error' if misplaced > 0.5 * total else 'warning',
        )


def _boxes(annotations: _Entries) -> _Array:
    """Return the boxes, (N, 4); NaN where one is not four finite numbers."""
    rows = [each.get('bbox') for each in annotations]
    boxes = [row if _is_box(row) else [np.nan] * 4 for row in rows]
    return np.array(boxes, float).reshape(-1, 4)


def _sizes(images: _Entries, entries: _Entries, key: str = 'image_id') -> _Array:
    """Return the width and height of each entry's image, (N, 2); NaN if they are unknown."""
    sizes = {
        each['id']: (each['width'], each['height'])
        for each in images
        if _is_number(each.get('width')) and _is_number(each.get('height'))
    }
    return np.array([sizes.get(each[key], (np.nan, np.nan)) for each in entries], float).reshape(
        -1, 2
    )
