"""Comparison of an exported file with the predictions of mmdet, mmseg or mmpretrain."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from numpy.typing import NDArray
from torch import Tensor, nn

from ..apis.config import inference_steps
from .graphs import ExportError, Graph

Results = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """Largest differences that are accepted.

    Attributes:
        score: Difference of two probabilities, including those of a mask's pixels.
        box: Difference of two box coordinates, in pixels of the input.
        pixels: Share of a class map's pixels whose class differs, or of a mask's pixels that
            differ although their probability is not within `score` of one half.
    """

    score: float = 1e-3
    box: float = 0.1
    pixels: float = 1e-3


HALF = Tolerance(score=3e-2, box=2.0, pixels=2e-2)


class Cut(NamedTuple):
    """Where a detector cuts off its list of instances.

    Attributes:
        score_thr: Lowest score.
        max_per_img: Largest number, or -1.
    """

    score_thr: float
    max_per_img: int


@dataclass
class Report:
    """Result of a comparison.

    Attributes:
        differences: Largest difference of each quantity.
        instances: Number of instances that both results contain; None if the task has none.
        disagreements: One message per image that exceeds the tolerance.
    """

    differences: dict[str, float] = field(default_factory=dict)
    instances: int | None = None
    disagreements: list[str] = field(default_factory=list)

    def record(self, name: str, value: Any) -> float:
        """Update the largest difference of a quantity and return `value`."""
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
    """Predict with PyTorch and onnxruntime, and compare the results in pixels of the input.

    Args:
        session: Session of onnxruntime for the file. If its input has a fixed size, images of
            detectors and segmentors are stretched to that size.
        model: The model as loaded, whose own `predict` is called.
        graph: The graph that was exported.
        cfg: Config that contains the test pipeline.
        images: Image files.
        tolerance: Differences that are accepted.

    Raises:
        ExportError: If the test pipeline of a classifier produces another size than that of the
            input.
    """
    report = Report()
    size = session.get_inputs()[0].shape[2:]
    pipeline = Compose(_pipeline(cfg, graph, size))
    test_cfg = getattr(model, 'test_cfg', None) or {}
    test_cfg = test_cfg.get('rcnn', test_cfg)
    cut = Cut(test_cfg.get('score_thr', 0), test_cfg.get('max_per_img', -1))
    for path in images:
        batch = pseudo_collate([pipeline(dict(img_path=str(path), img_id=0))])
        with torch.no_grad():
            data = model.data_preprocessor(batch, False)  # type: ignore[operator]
            expected = _predict(model, graph.task, data['inputs'], data['data_samples'])
        height, width = data['data_samples'][0].img_shape[:2]
        if isinstance(size[0], int) and size != [height, width]:
            raise ExportError(
                f'the test pipeline produces images of {height}x{width} pixels, but the input '
                f'of the file is {size[0]}x{size[1]}: export with --shape {height} {width}'
            )
        unpadded = data['inputs'][..., :height, :width].numpy()
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, {'images': unpadded})))
        if 'masks' in found:
            found['masks'] = _paste(found['masks'], found['boxes'], height, width)
        problem = _compare(expected, found, tolerance, report, cut)
        if problem:
            report.disagreements.append(f'{Path(path).name}: {problem}')
    return report


def _pipeline(cfg: Config, graph: Graph, size: Sequence[Any]) -> list[Any]:
    steps = [copy.deepcopy(dict(step.settings)) for step in inference_steps(cfg)]
    if isinstance(size[0], int) and graph.task != 'classification':
        steps[1:-1] = [dict(type='Resize', scale=(size[1], size[0]))]
    return steps


def _predict(model: Any, task: str, inputs: Tensor, samples: list[Any]) -> Results:
    """Return the predictions of the model under the names of the graph's outputs."""
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
    """Interpolate masks on grids over the boxes to probabilities per pixel of the image."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    if not len(masks):
        return np.zeros((0, height, width), np.float32)
    grids = torch.from_numpy(masks)[:, None]
    return _do_paste_mask(grids, torch.from_numpy(boxes), height, width, False)[0].numpy()


def _compare(
    expected: Results, found: Results, tolerance: Tolerance, report: Report, cut: Cut
) -> str:
    """Compare the results of one image; return a message if they differ too much, else ''."""
    if 'probabilities' in expected:
        a, b = expected['probabilities'][0], found['probabilities'][0]
        worst = report.record('probability', np.abs(a - b).max())
        # Two classes of almost equal probability may swap ranks.
        agree = a.argmax() == b.argmax() or a.max() - a[b.argmax()] <= tolerance.score
        return '' if agree and worst <= tolerance.score else f'probabilities differ by {worst:.2g}'
    if 'class_map' in expected:
        share = np.mean(expected['class_map'] != found['class_map'])
        report.record('share of pixels', share)
        return f'{share:.2%} of the pixels differ' if share > tolerance.pixels else ''
    return _compare_instances(expected, found, tolerance, report, cut)


def _compare_instances(
    expected: Results, found: Results, tolerance: Tolerance, report: Report, cut: Cut
) -> str:
    """Pair instances of the same class, position and score, whatever their order.

    Unpaired instances are accepted if their score is close to where the other list was cut off.
    """
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
        report.record('box, pixels', apart[nearest])
        report.record('score', abs(found['scores'][j] - score))
        if 'masks' in expected:
            inside = max(1, expected['masks'][i].sum())
            margin = np.where(
                expected['masks'][i], 0.5 - found['masks'][j], found['masks'][j] - 0.5
            )
            share = (margin > tolerance.score).sum() / inside
            if report.record('share of mask', share) > tolerance.pixels:
                return f'a mask differs in {share:.2%} of its pixels'
    unpaired = [
        score
        for scores, others in ((missing, found), (found['scores'][left], expected))
        for score in scores
        if score > _lowest(others['scores'], cut) + tolerance.score
    ]
    if unpaired:
        return (
            f'{len(unpaired)} instances are in one result only, highest score {max(unpaired):.3f}'
        )
    return ''


def _lowest(scores: Any, cut: Cut) -> float:
    """Return the score below which an instance was cut off from a list."""
    is_full = 0 < cut.max_per_img == len(scores)
    return max(cut.score_thr, min(scores)) if is_full else cut.score_thr
