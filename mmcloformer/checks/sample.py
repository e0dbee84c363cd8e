"""One sample through the loading steps of its own pipeline, and what these let pass."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from mmengine import fileio
from mmengine.dataset import BaseDataset

from .image import decode, file_problem, why_unreadable
from .labels import class_problem, label_map_problem, size_hint
from .masks import polygon_problem, run_length_problem


def sample_problems(dataset: BaseDataset, index: int, num_classes: int | None) -> Iterator[str]:
    """Read a sample's files, load them as training does, and look at what comes out.

    Of the pipeline only the loading is run; the rest is random and leaves bad files as they are.

    Args:
        dataset: A host's, not a wrapper.
        index: Of the sample.
        num_classes: Labels must be below it; None if the host numbers them, as mmdet does.

    Yields:
        Bad files, each with what is wrong and what to do.
    """
    info = dataset.get_data_info(index)
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
        yield from _load(steps, info, contents, num_classes, ignored)


def _name(info: Mapping[str, Any]) -> str:
    return str(info.get('img_path', f'sample {info["sample_idx"]}'))


def _file_of(step: Any, info: Mapping[str, Any]) -> str | None:
    """The image file that a step reads, if it reads one."""
    key = 'img_path'
    if hasattr(step, 'with_bbox'):
        key = 'seg_map_path' if step.with_seg else ''
    path = info.get(key)
    return path if isinstance(path, str) else None


def _read(file: str, step: Any) -> tuple[bytes, str | None]:
    try:
        content = fileio.get(file, backend_args=getattr(step, 'backend_args', None))
    except FileNotFoundError:
        return b'', 'is missing; put it there, or take its sample out of the data set'
    except OSError as error:
        return b'', f'cannot be opened ({error.strerror})'
    return content, file_problem(content)


def _load(
    steps: Sequence[Any],
    info: dict[str, Any],
    contents: Mapping[str, bytes],
    num_classes: int | None,
    ignored: int,
) -> Iterator[str]:
    for step in steps:
        file = _file_of(step, info)
        masks = getattr(step, 'with_mask', False)
        try:
            if masks and (problem := _mask_problem(info)):
                yield f'{_name(info)}: {problem}'
                return
            loaded, problem = decode(partial(step, info))
        except Exception as error:  # Any at all: that the host raises is what is looked for.
            if file:
                yield f'{file}: {why_unreadable(contents[file], error)}'
            else:
                yield f'{_name(info)}: the host cannot load its annotations ({error!r}); mend them'
            return
        if problem:
            yield f'{file}: {problem}'
        if loaded is None:  # The step was told to leave unreadable images out.
            return
        info = loaded
    said = info.get('height'), info.get('width')
    if None not in said and 'img_shape' in info and said != tuple(info['img_shape']):
        height, width = info['img_shape']
        yield (
            f'{_name(info)}: is {width}x{height}, its annotation says {said[1]}x{said[0]}; '
            f'{size_hint(said, info["img_shape"])}'
        )
    if num_classes and 'gt_seg_map' in info:
        file = info['seg_map_path']
        if problem := label_map_problem(info, contents[file], num_classes, ignored):
            yield f'{file}: {problem}'


def _mask_problem(info: Mapping[str, Any]) -> str | None:
    for instance in info.get('instances', []):
        where = f'its object with the box (x1, y1, x2, y2) {instance["bbox"]}'
        mask = instance.get('mask')
        if mask is None:
            return f'{where} has no mask; add the segmentation, or remove the object'
        problem = None
        # The host itself leaves out masks of other forms.
        if isinstance(mask, dict) and isinstance(mask.get('counts'), (list, str)):
            problem = 'size' in mask and run_length_problem(mask, *info['ori_shape'])
        elif isinstance(mask, list):
            problem = polygon_problem(mask)
        if problem:
            return f'{where}: {problem}; correct or remove it'
    return None
