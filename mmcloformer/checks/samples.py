"""Loads one sample with its own pipeline and reports the faults that loading misses."""

import io
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import mmcv
import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine import fileio
from mmengine.dataset import BaseDataset
from PIL import ExifTags, Image

from .image import decode, error_text, file_problem, keeps_size, unreadable_reason, unused_bits
from .labels import blurred_fault, class_counts, class_fault, label_map_fault, size_remedy
from .masks import polygon_fault, run_length_fault
from .problem import Fault, Problem


class Expected(NamedTuple):
    """What the samples of a data set must fit.

    Attributes:
        field: Field of the data set.
        num_classes: Labels must be below this number; None if the host assigns labels itself, as
            mmdet does.
        ignored: Values of a label map that losses or evaluators leave out.
    """

    field: str
    num_classes: int | None = None
    ignored: Collection[int] = frozenset([255])


def sample_problems(
    dataset: BaseDataset, index: int, expected: Expected, counts: Counter[int] | None = None
) -> Iterator[Problem]:
    """Load a sample as training does, and check the result and its files.

    Only the loading steps of the pipeline are run; the others are random and detect no bad files.
    What they load is good, unless a part of it is lost. An error while a sample is examined is a
    problem of this sample.

    Args:
        dataset: Data set of a host, not a wrapper.
        index: Index of the sample.
        expected: What the sample must fit.
        counts: Gets the sample's labels, as `class_counts` counts them.
    """
    name = f'sample {index}'
    try:
        info = dataset.get_data_info(index)
        name = str(info.get('img_path', name))
        for file, fault, severity in _sample_faults(dataset, info, expected, counts):
            yield Problem(expected.field, *fault, file=file or name, severity=severity)
    except Exception as error:  # One sample must not end the examination of the others.
        found = f'cannot be examined ({error_text(error)})'
        yield Problem(expected.field, found, 'correct or remove it', name)


_Found = tuple[str, Fault, Literal['error', 'warning']]


def _sample_faults(
    dataset: BaseDataset, info: dict[str, Any], expected: Expected, counts: Counter[int] | None
) -> Iterator[_Found]:
    """Yield the faults of a sample, with the file if that is not the image."""
    number = expected.num_classes
    if number and (fault := class_fault(info.get('gt_label', []), number)):
        yield '', fault, 'error'
    annotated = False
    for step in dataset.pipeline.transforms:
        loads_annotations = isinstance(step, LoadAnnotations)
        # Steps before there is an image can only load it.
        if not (loads_annotations or isinstance(step, LoadImageFromFile) or 'img' not in info):
            continue
        masks = loads_annotations and getattr(step, 'with_mask', False)
        if masks and (fault := _mask_fault(info)):
            yield '', fault, 'error'
            return
        file = _file_of(step, info)
        try:
            loaded, lost = decode(partial(step, info))
        except Exception as error:  # Any error of the host is a finding.
            yield file, _loading_fault(file, step, error), 'error'
            return
        if loaded is None:  # The step is configured to skip unreadable images.
            return
        info = loaded
        content = _content(file, step)
        if fault := lost or (file_problem(content) if content else None):
            yield file, fault, 'error'
            return
        if isinstance(step, LoadImageFromFile) and content:
            annotated = any(
                isinstance(each, LoadAnnotations) for each in dataset.pipeline.transforms
            )
            for fault in _image_warnings(step, info['img'], content, annotated):
                yield file, fault, 'warning'
        if loads_annotations and file and content:
            backend = getattr(step, 'imdecode_backend', None)
            yield from _label_map_faults(info, file, content, expected, backend)
    if counts is not None:
        counts.update(class_counts(info, expected.ignored))
    said = info.get('height'), info.get('width')
    if None not in said and 'img_shape' in info and said != tuple(info['img_shape']):
        height, width = info['img_shape']
        found = f'is {width}x{height}, its annotation says {said[1]}x{said[0]}'
        yield '', Fault(found, size_remedy(said, info['img_shape'])), 'error'


def _file_of(step: Any, info: Mapping[str, Any]) -> str:
    """Return the image file that a step reads; empty if it reads none."""
    key = 'img_path'
    if isinstance(step, LoadAnnotations):
        key = 'seg_map_path' if getattr(step, 'with_seg', False) else ''
    path = info.get(key)
    return path if isinstance(path, str) else ''


def _content(file: str, step: Any) -> bytes:
    """Return the content of a file; empty if the step reads it in another way."""
    try:
        return bytes(fileio.get(file, backend_args=getattr(step, 'backend_args', None)))
    except Exception:  # Every file backend has errors of its own.
        return b''


def _loading_fault(file: str, step: Any, error: Exception) -> Fault:
    """Return why a step failed."""
    if not file:
        return Fault(f'the host cannot load its annotations ({error_text(error)})', 'fix them')
    try:
        content = bytes(fileio.get(file, backend_args=getattr(step, 'backend_args', None)))
    except FileNotFoundError:
        return _missing_fault(file)
    except Exception as refused:
        reason = getattr(refused, 'strerror', None) or error_text(refused)
        return Fault(f'cannot be opened ({reason})', 'make it readable')
    return file_problem(content) or unreadable_reason(content, error)


def _missing_fault(file: str) -> Fault:
    if '\ufeff' in file:
        return Fault(
            'is missing: its name begins with the byte-order mark of the annotation file',
            'save that as UTF-8 without one',
        )
    slashed = file.replace('\\', '/')
    if slashed != file and os.path.exists(slashed):
        return Fault(
            f'is missing, {slashed} exists', 'write / in place of \\ in the annotation file'
        )
    return Fault('is missing', 'put it there, or take its sample out of the data set')


def _mask_fault(info: Mapping[str, Any]) -> Fault | None:
    for instance in info.get('instances', []):
        where = f'its object with the box (x1, y1, x2, y2) {instance["bbox"]}'
        mask = instance.get('mask')
        if mask is None:
            return Fault(f'{where} has no mask', 'add the segmentation, or remove the object')
        problem = None
        # The host itself ignores masks of other forms.
        if isinstance(mask, dict) and isinstance(mask.get('counts'), (list, str)):
            problem = run_length_fault(mask, *info['ori_shape']) if 'size' in mask else None
        elif isinstance(mask, list):
            problem = polygon_fault(mask)
        if problem:
            return Fault(f'{where}: {problem.found}', problem.remedy)
    return None


def _label_map_faults(
    info: Mapping[str, Any], file: str, content: bytes, expected: Expected, backend: str | None
) -> Iterator[_Found]:
    if expected.num_classes is None or 'gt_seg_map' not in info:
        return
    fault = label_map_fault(info, content, expected.num_classes, expected.ignored, backend)
    if fault:
        yield file, fault, 'error'
    elif fault := blurred_fault(info['gt_seg_map']):
        yield file, fault, 'warning'


def _image_warnings(step: Any, image: Any, content: bytes, annotated: bool) -> Iterator[Fault]:
    """Yield what a decoder changes without a word."""
    decoder = (getattr(step, 'color_type', 'color'), getattr(step, 'imdecode_backend', None))
    if annotated and keeps_size(content) and _turns(*decoder):
        yield Fault(
            'is turned or mirrored by its EXIF tag, at the same size. This may be meant',
            'if boxes or labels are those of the pixels as stored, save it without the tag',
        )
    # The host keeps the upper 8 bits. Values that fit into 14 leave a quarter of the levels.
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.max() < 64:
        bits = unused_bits(content)
        if bits and 8 < bits <= 14:
            yield Fault(
                f'has 16 bits, of which its values take {bits}, and the host keeps the upper 8: it '
                'is almost black',
                'scale the values of all images alike, such as by 16 for 12 bits',
            )


@lru_cache
def _turns(color_type: str, backend: str | None) -> bool:
    """Return whether a decoder follows the EXIF tag, by an image whose upper half is black."""
    half = np.zeros((16, 16, 3), np.uint8)
    half[8:] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    content = io.BytesIO()
    Image.fromarray(half).save(content, 'JPEG', exif=exif)
    with suppress(Exception):  # Decoders of other formats.
        image = mmcv.imfrombytes(content.getvalue(), flag=color_type, backend=backend)
        return bool(image[:8].mean() > image[8:].mean())
    return False
