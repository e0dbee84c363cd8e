"""The exported file beside the host's own prediction, on images."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from numpy.typing import NDArray
from torch import Tensor, nn

from .graphs import ExportError, Graph

Results = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """How far two results may lie apart.

    Attributes:
        score: Of probabilities, those of a mask's pixels included.
        box: Of corners, in pixels of the input.
        pixels: Share of a map's pixels that may be of another class, and of a mask's that may
            change sides although they were not as near to both.
    """

    score: float = 1e-3
    box: float = 0.1
    pixels: float = 1e-3


HALF = Tolerance(score=3e-2, box=2.0, pixels=2e-2)


@dataclass
class Report:
    """What a comparison found.

    Attributes:
        differences: Largest difference by quantity.
        instances: How many that both found were compared; None where a task has none.
        disagreements: One sentence each.
    """

    differences: dict[str, float] = field(default_factory=dict)
    instances: int | None = None
    disagreements: list[str] = field(default_factory=list)

    def differ(self, name: str, value: Any) -> float:
        """Take a difference into account."""
        self.differences[name] = max(self.differences.get(name, 0.0), float(value))
        return float(value)


def compare(
    session: Any,
    model: nn.Module,
    graph: Graph,
    cfg: Config,
    images: Iterable[str | Path],
    tolerance: Tolerance,
) -> Report:
    """Predict by both and compare in pixels of the input.

    Args:
        session: onnxruntime's, of the file. A fixed input gets images stretched to it.
        model: The host's model as loaded.
        graph: What was exported.
        cfg: The config, for its test pipeline.
        images: Files.
        tolerance: Beyond which results disagree.

    Raises:
        ExportError: If the test pipeline makes images of another size than the input's.
    """
    report = Report()
    size = session.get_inputs()[0].shape[2:]
    pipeline = Compose(_pipeline(cfg, graph, size))
    for path in images:
        batch = pseudo_collate([pipeline(dict(img_path=str(path), img_id=0))])
        with torch.no_grad():
            data = model.data_preprocessor(batch, False)  # type: ignore[operator]
            expected = _predict(model, graph.task, data['inputs'], data['data_samples'])
        height, width = data['data_samples'][0].img_shape[:2]
        if isinstance(size[0], int) and size != [height, width]:
            raise ExportError(
                f'the test pipeline makes images of {height}x{width} pixels, and the input takes '
                f'{size[0]}x{size[1]}: export with --shape {height} {width}'
            )
        unpadded = data['inputs'][..., :height, :width].numpy()
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, {'images': unpadded})))
        if 'masks' in found:
            found['masks'] = _paste(found['masks'], found['boxes'], height, width)
        problem = _compare(expected, found, tolerance, report)
        if problem:
            report.disagreements.append(f'{Path(path).name}: {problem}')
    return report


def _pipeline(cfg: Config, graph: Graph, size: Sequence[Any]) -> list[Any]:
    steps = [
        copy.deepcopy(step)
        for step in cfg.test_dataloader.dataset.pipeline
        if not step.type.endswith('LoadAnnotations')
    ]
    if isinstance(size[0], int) and graph.task != 'classification':
        load, *_, pack = steps
        steps = [load, dict(type='Resize', scale=(size[1], size[0])), pack]
    return steps


def _predict(model: Any, task: str, inputs: Tensor, samples: list[Any]) -> Results:
    """The host's prediction, under the names of the graph's outputs."""
    if task == 'classification':
        return dict(probabilities=model.predict(inputs, samples)[0].pred_score[None].numpy())
    if task == 'semantic segmentation':
        samples[0].set_metainfo(dict(ori_shape=inputs.shape[2:]))
        return dict(class_map=model.predict(inputs, samples)[0].pred_sem_seg.data.numpy())
    instances = model.predict(inputs, samples, rescale=False)[0].pred_instances
    return {name.replace('bbox', 'box'): value.numpy() for name, value in instances.items()}


def _paste(
    masks: NDArray[Any], boxes: NDArray[Any], height: int, width: int
) -> NDArray[np.float32]:
    """Probability of each pixel of the image to lie in the mask, from those of the grids."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    if not len(masks):
        return np.zeros((0, height, width), np.float32)
    grids = torch.from_numpy(masks)[:, None]
    return _do_paste_mask(grids, torch.from_numpy(boxes), height, width, False)[0].numpy()


def _compare(expected: Results, found: Results, tolerance: Tolerance, report: Report) -> str:
    """Compare one image's results; what they disagree in, or nothing."""
    if 'probabilities' in expected:
        a, b = expected['probabilities'][0], found['probabilities'][0]
        worst = report.differ('probability', np.abs(a - b).max())
        # Classes that are as probable as each other may change places.
        agree = a.argmax() == b.argmax() or a.max() - a[b.argmax()] <= tolerance.score
        return '' if agree and worst <= tolerance.score else f'probabilities differ by {worst:.2g}'
    if 'class_map' in expected:
        share = np.mean(expected['class_map'] != found['class_map'])
        report.differ('share of pixels', share)
        return f'{share:.2%} of the pixels differ' if share > tolerance.pixels else ''
    return _compare_instances(expected, found, tolerance, report)


def _compare_instances(
    expected: Results, found: Results, tolerance: Tolerance, report: Report
) -> str:
    """Pair instances of the same class and place, best first; a pair may stand anywhere in both
    lists, and the weakest of a list may fall just short of its end."""
    left = list(range(len(found['scores'])))
    missing = []
    report.instances = report.instances or 0
    for i, (box, score, label) in enumerate(
        zip(expected['boxes'], expected['scores'], expected['labels'])
    ):
        apart = np.abs(found['boxes'][left] - box).max(axis=1)
        candidates = np.flatnonzero(
            (found['labels'][left] == label)
            & (apart <= tolerance.box)
            & (np.abs(found['scores'][left] - score) <= tolerance.score)
        )
        if not len(candidates):
            missing.append(score)
            continue
        nearest = candidates[apart[candidates].argmin()]
        j = left.pop(nearest)
        report.instances += 1
        report.differ('box, pixels', apart[nearest])
        report.differ('score', abs(found['scores'][j] - score))
        if 'masks' in expected:
            inside = max(1, expected['masks'][i].sum())
            lacks = np.where(expected['masks'][i], 0.5 - found['masks'][j], found['masks'][j] - 0.5)
            share = (lacks > tolerance.score).sum() / inside
            if report.differ('share of mask', share) > tolerance.pixels:
                return f'a mask differs in {share:.2%} of its pixels'
    weakest = min([*expected['scores'], *found['scores']], default=0) + tolerance.score
    unpaired = [score for score in [*missing, *found['scores'][left]] if score > weakest]
    if unpaired:
        return f'{len(unpaired)} instances are in one result only, best score {max(unpaired):.3f}'
    return ''
