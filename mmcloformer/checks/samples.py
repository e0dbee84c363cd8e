"""Loads one sample with its own pipeline and reports the faults that loading misses."""

import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine import fileio
from mmengine.dataset import BaseDataset
from PIL import ExifTags, Image

from .image import decode, error_text, file_problem, unreadable_reason
from .labels import SIZE_REMEDY, blurred_fault, class_counts, class_fault, label_map_fault
from .masks import mask_fault
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


def examine_sample(
    dataset: BaseDataset, expected: Expected, index: int
) -> tuple[list[Problem], Counter[int]]:
    """Load a sample as training does, and check the result and its files.

    Only the loading steps of the pipeline are run; the others are random and detect no bad files.
    What they load is good, unless a part of it is lost. An error while a sample is examined is a
    problem of this sample.

    Args:
        dataset: Data set of a host, not a wrapper.
        expected: What the sample must fit.
        index: Index of the sample.

    Returns:
        The problems, and the sample's labels as `class_counts` counts them.
    """
    name, counts = f'sample {index}', Counter[int]()
    problems: list[Problem] = []
    try:
        info = dataset.get_data_info(index)
        name = str(info.get('img_path', name))
        for file, fault, severity in _sample_faults(dataset, info, expected, counts):
            problems.append(Problem(expected.field, *fault, file or name, severity))
    except Exception as error:  # One sample must not end the examination of the others.
        found = f'cannot be examined ({error_text(error)})'
        problems.append(Problem(expected.field, found, 'correct or remove it', name))
    return problems, counts


def _sample_faults(
    dataset: BaseDataset, info: dict[str, Any], expected: Expected, counts: Counter[int]
) -> Iterator[tuple[str, Fault, Literal['error', 'warning']]]:
    """Yield the faults of a sample, with the file if that is not the image."""
    number = expected.num_classes
    if number and (fault := class_fault(info.get('gt_label', []), number)):
        yield '', fault, 'error'
    steps = dataset.pipeline.transforms
    for step in steps:
        loads_annotations = isinstance(step, LoadAnnotations)
        # Steps before there is an image can only load it.
        if not (loads_annotations or isinstance(step, LoadImageFromFile) or 'img' not in info):
            continue
        masks = loads_annotations and getattr(step, 'with_mask', False)
        if masks and (fault := _mask_fault(info)):
            yield '', fault, 'error'
            return
        file = _file_of(step, info)
        content = _read(file, step) if file else b''
        try:
            loaded, lost = decode(partial(step, info))
        except Exception as error:  # Any error of the host is a finding.
            yield file, _loading_fault(file, content, error), 'error'
            return
        if loaded is None:  # The step is configured to skip unreadable images.
            return
        info = loaded
        if not isinstance(content, bytes):  # The user's own step reads it from elsewhere.
            content = b''
        if fault := lost or (file_problem(content) if content else None):
            yield file, fault, 'error'
            return
        if loads_annotations and content and number and 'gt_seg_map' in info:
            if fault := label_map_fault(info, content, number, expected.ignored):
                yield file, fault, 'error'
            elif fault := blurred_fault(info['gt_seg_map']):
                yield file, fault, 'warning'
        elif content and isinstance(step, LoadImageFromFile):
            annotated = any(isinstance(each, LoadAnnotations) for each in steps)
            for fault in _image_warnings(step, info['img'], content, annotated):
                yield file, fault, 'warning'
    counts.update(class_counts(info, expected.ignored))
    said = info.get('height'), info.get('width')
    if None not in said and 'img_shape' in info and said != tuple(info['img_shape']):
        height, width = info['img_shape']
        found = f'is {width}x{height}, its annotation says {said[1]}x{said[0]}'
        yield '', Fault(found, SIZE_REMEDY), 'error'


def _file_of(step: Any, info: Mapping[str, Any]) -> str:
    """Return the image file that a step reads; empty if it reads none."""
    key = 'img_path'
    if isinstance(step, LoadAnnotations):
        key = 'seg_map_path' if getattr(step, 'with_seg', False) else ''
    path = info.get(key)
    return path if isinstance(path, str) else ''


def _read(file: str, step: Any) -> bytes | Exception:
    """Return the content of a file, or why it cannot be read."""
    try:
        return bytes(fileio.get(file, backend_args=getattr(step, 'backend_args', None)))
    except Exception as error:  # Every file backend has errors of its own.
        return error


def _loading_fault(file: str, content: bytes | Exception, error: Exception) -> Fault:
    """Return why a step failed, given what `_read` returns."""
    if not file:
        return Fault(f'the host cannot load its annotations ({error_text(error)})', 'fix them')
    if isinstance(content, bytes):
        return file_problem(content) or unreadable_reason(content, error)
    if isinstance(content, FileNotFoundError):
        slashes = ', or write / in place of \\ in the annotation file' * ('\\' in file)
        return Fault('is missing', f'put it there, or take its sample out of the data set{slashes}')
    reason = getattr(content, 'strerror', None) or error_text(content)
    return Fault(f'cannot be opened ({reason})', 'make it readable')


def _mask_fault(info: Mapping[str, Any]) -> Fault | None:
    for instance in info.get('instances', []):
        mask = instance.get('mask')
        fault = mask_fault(mask, *info['ori_shape'])
        if mask is None:
            fault = Fault('it has no mask', 'add the segmentation, or remove the object')
        if fault:
            where = f'its object with the box (x1, y1, x2, y2) {instance["bbox"]}'
            return Fault(f'{where}: {fault.found}', fault.remedy)
    return None


def _image_warnings(step: Any, image: Any, content: bytes, annotated: bool) -> Iterator[Fault]:
    """Yield what a decoder changes without a word."""
    if annotated and b'Exif\0\0' in content[:65536] and _is_turned(step, image, content):
        yield Fault(
            'is turned or mirrored by its EXIF tag, at the same size. This may be meant',
            'if boxes or labels are those of the pixels as stored, save it without the tag',
        )
    # The host keeps the upper 8 bits. Values that fit into 14 leave a quarter of the levels.
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.max() < 64:
        with suppress(cv2.error):
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            if pixels is None or pixels.dtype != np.uint16:
                return
            bits = int(pixels.max()).bit_length()
            if 8 < bits <= 14:
                yield Fault(
                    f'has 16 bits, of which its values take {bits}, and the host keeps the upper '
                    '8: it is almost black',
                    'scale the values of all images alike, such as by 16 for 12 bits',
                )


def _is_turned(step: Any, image: Any, content: bytes) -> bool:
    """Return whether a loading step turned or mirrored an image and kept its width and height."""
    flag = f'{getattr(step, "color_type", "color")}_ignore_orientation'
    with suppress(Exception):  # Other values of color_type never turn, and other steps may fail.
        turn = Image.open(io.BytesIO(content)).getexif().get(ExifTags.Base.Orientation, 1)
        if turn != 1:
            backend = getattr(step, 'imdecode_backend', None)
            stored = mmcv.imfrombytes(content, flag=flag, backend=backend)
            return bool(stored.shape == image.shape and (stored != image).any())
    return False
