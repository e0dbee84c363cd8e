"""Checks the annotations of a COCO file for the fields that mmdet and its evaluator read."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config import ConfigView
from ..errors import join_first
from .masks import scored_mask_problem
from .text import decode_text, mark_problem

_NUMBER = (int, float)
_FIELDS = ('id', 'image_id', 'category_id', 'bbox', 'area')


def evaluator_problems(cfg: Config, split: str) -> Iterator[str]:
    """Yield what is wrong with the annotation files of mmdet's `CocoMetric`.

    Args:
        cfg: The whole config.
        split: `val` or `test`.
    """
    for found in ConfigView(cfg).evaluators(split):
        evaluator = found.settings
        file, metric = evaluator.get('ann_file'), evaluator.get('metric', 'bbox')
        read = str(evaluator['type']).endswith('CocoMetric') and not evaluator.get('format_only')
        if file and read and not (evaluator.get('backend_args') or '://' in file):
            for problem in annotation_problems(Path(file), scored=True, masks='segm' in metric):
                yield f'{file}: {problem}'


def annotation_problems(file: Path, scored: bool = False, masks: bool = False) -> Iterator[str]:
    """Yield what is wrong with the annotations of a file.

    Args:
        file: Path of the file.
        scored: Whether an evaluator reads the file.
        masks: Whether the evaluator compares masks.
    """
    encoded = file.read_bytes()
    if problem := mark_problem(encoded, str(file)):
        yield problem
    try:
        content = json.loads(decode_text(encoded, str(file)))
        images = {image['id']: image for image in content['images']}
        annotations = content.get('annotations', [])
        if not all(isinstance(annotation, dict) for annotation in annotations):
            raise TypeError('an annotation is no object')
    except (ValueError, KeyError, TypeError) as error:
        yield f"not in COCO's format ({error!r})"
        return
    if masks:
        yield from size_problems(content['images'])
    fields = (*_FIELDS, 'iscrowd') if scored else _FIELDS
    masked = images if masks else {}
    # The data set skips ignored annotations, the evaluator does not.
    read = [each for each in annotations if scored or not each.get('ignore')]
    yield from by_problem((each, _problem(each, fields, masked)) for each in read)


def by_problem(found: Iterable[tuple[Mapping[str, Any], str | None]]) -> Iterator[str]:
    """Yield each problem once, with the ids of the annotations that have it.

    Args:
        found: Pairs of an annotation and its problem, or None if it has none.
    """
    names: dict[str, list[Any]] = {}
    for annotation, problem in found:
        if problem:
            names.setdefault(problem, []).append(annotation.get('id'))
    for problem, those in names.items():
        yield f'annotation {join_first(those)}: {problem}'


def size_problems(images: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which images have no size; the host stops at these with a bare `KeyError`.

    Args:
        images: The images of the file.
    """
    for side in ('height', 'width'):
        absent = [image['id'] for image in images if not isinstance(image.get(side), _NUMBER)]
        if absent:
            yield f'image {join_first(absent)}: no {side}; add it, in pixels'


def box_problem(box: Any) -> str | None:
    """Return why a box is invalid.

    Python's JSON parser accepts NaN and infinity; the host drops such a box or stretches it to the
    edge of the image.

    Args:
        box: The `bbox` of an annotation.

    Returns:
        The reason and what to do, or None.
    """
    whole = (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(number, _NUMBER) and math.isfinite(number) for number in box)
    )
    return None if whole else 'its box is not four finite numbers; correct or remove it'


def _problem(
    annotation: Mapping[str, Any], fields: Sequence[str], masked: Mapping[Any, Any]
) -> str | None:
    if absent := [field for field in fields if field not in annotation]:
        return f'no {", no ".join(absent)}; add it'
    if problem := box_problem(annotation['bbox']):
        return problem
    if not isinstance(annotation['area'], _NUMBER):
        return 'its area is not a number; write it in square pixels'
    image = masked.get(annotation['image_id'])
    if image and not [*size_problems([image])]:
        mask = annotation.get('segmentation')
        problem = scored_mask_problem(mask, image['height'], image['width'])
        return problem and f'{problem}; correct or remove it'
    return None
