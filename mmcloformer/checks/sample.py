"""Loads one sample with its own pipeline and reports the faults that loading misses."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from mmengine import fileio
from mmengine.dataset import BaseDataset

from .image import decode, error_text, file_problem, unreadable_reason
from .labels import class_problem, label_map_problem, size_hint
from .learnable import class_counts
from .masks import polygon_problem, run_length_problem


def sample_problems(
    dataset: BaseDataset, index: int, num_classes: int | None, counts: Counter[int] | None = None
) -> Iterator[str]:
    """Read the files of a sample, load them as training does, and check the result.

    Only the loading steps of the pipeline are run; the others are random and detect no bad files.
    An error while a sample is examined is a problem of this sample.

    Args:
        dataset: Data set of a host, not a wrapper.
        index: Index of the sample.
        num_classes: Labels must be below this number; None if the host assigns labels itself, as
            mmdet does.
        counts: Gets the sample's labels, as `class_counts` counts them.

    Yields:
        Bad files, each with what is wrong and what to do.
    """
    name = f'sample {index}'
    try:
        info = dataset.get_data_info(index)
        name = _name(info)
        yield from _problems(dataset, info, num_classes, counts)
    except Exception as error:  # One sample must not end the examination of the others.
        yield f'{name}: cannot be examined ({error_text(error)}); correct or remove it'


def _problems(
    dataset: BaseDataset,
    info: dict[str, Any],
    num_classes: int | None,
    counts: Counter[int] | None,
) -> Iterator[str]:
    if num_classes and (problem := class_problem(info.get('gt_label', []), num_classes)):
        yield f'{_name(info)}: {problem}'
    steps = [step for step in dataset.pipeline.transforms if type(step).__name__.startswith('Load')]
    contents = {}
    whole = True
    for step in steps:
        if file := _file_of(step, info):
            contents[file], problem = _read(file, step)
            if problem:
                yield f'{file}: {problem}'
                whole = False
    if whole:
        ignored = getattr(dataset, 'ignore_index', 255)
        yield from _load(steps, info, contents, num_classes, ignored, counts)


def _name(info: Mapping[str, Any]) -> str:
    return str(info.get('img_path', f'sample {info["sample_idx"]}'))


def _file_of(step: Any, info: Mapping[str, Any]) -> str | None:
    """Return the image file that a step reads, or None."""
    key = 'img_path'
    if hasattr(step, 'with_bbox'):
        key = 'seg_map_path' if step.with_seg else ''
    path = info.get(key)
    return path if isinstance(path, str) else None


def _read(file: str, step: Any) -> tuple[bytes, str | None]:
    try:
        content = fileio.get(file, backend_args=getattr(step, 'backend_args', None))
    except FileNotFoundError:
        return b'', _missing_reason(file)
    except Exception as error:  # Every file backend has errors of its own.
        return b'', f'cannot be opened ({getattr(error, "strerror", None) or error_text(error)})'
    return content, file_problem(content)


def _missing_reason(file: str) -> str:
    if '\ufeff' in file:
        return (
            'is missing: its name begins with the byte-order mark of the annotation file; save '
            'that as UTF-8 without one'
        )
    slashed = file.replace('\\', '/')
    if slashed != file and os.path.exists(slashed):
        return f'is missing, {slashed} exists: write / in place of \\ in the annotation file'
    return 'is missing; put it there, or take its sample out of the data set'


def _load(
    steps: Sequence[Any],
    info: dict[str, Any],
    contents: Mapping[str, bytes],
    num_classes: int | None,
    ignored: int,
    counts: Counter[int] | None,
) -> Iterator[str]:
    for step in steps:
        file = _file_of(step, info)
        masks = getattr(step, 'with_mask', False)
        try:
            if masks and (problem := _mask_problem(info)):
                yield f'{_name(info)}: {problem}'
                return
            loaded, problem = decode(partial(step, info))
        except Exception as error:  # Any error of the host is a finding.
            if file:
                yield f'{file}: {unreadable_reason(contents[file], error)}'
            else:
                reason = f'the host cannot load its annotations ({error_text(error)}); fix them'
                yield f'{_name(info)}: {reason}'
            return
        if problem:
            yield f'{file}: {problem}'
        if loaded is None:  # The step is configured to skip unreadable images.
            return
        info = loaded
    if counts is not None:
        counts.update(class_counts(info, ignored))
    said = info.get('height'), info.get('width')
    if None not in said and 'img_shape' in info and said != tuple(info['img_shape']):
        height, width = info['img_shape']
        yield (
            f'{_name(info)}: is {width}x{height}, its annotation says {said[1]}x{said[0]}; '
            f'{size_hint(said, info["img_shape"])}'
        )
    if num_classes and 'gt_seg_map' in info:
        file = info['seg_map_path']
        (backend,) = (
            getattr(step, 'imdecode_backend', None)
            for step in steps
            if getattr(step, 'with_seg', False)
        )
        if problem := label_map_problem(info, contents[file], num_classes, ignored, backend):
            yield f'{file}: {problem}'


def _mask_problem(info: Mapping[str, Any]) -> str | None:
    for instance in info.get('instances', []):
        where = f'its object with the box (x1, y1, x2, y2) {instance["bbox"]}'
        mask = instance.get('mask')
        if mask is None:
            return f'{where} has no mask; add the segmentation, or remove the object'
        problem = None
        # The host itself ignores masks of other forms.
        if isinstance(mask, dict) and isinstance(mask.get('counts'), (list, str)):
            problem = 'size' in mask and run_length_problem(mask, *info['ori_shape'])
        elif isinstance(mask, list):
            problem = polygon_problem(mask)
        if problem:
            return f'{where}: {problem}; correct or remove it'
    return None
