"""Reads the results of each host, and draws them with its own visualizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray

from ..config import ConfigView
from ..engine.pictures import fill_palette
from ..errors import DataError, UserError, join_first


class Results:
    """Reads and draws the results of a host.

    Args:
        cfg: The whole config.
        model: The model of the config, with its weights.
        meta: Classes and palette of the data set.
        score_thr: See `Predictor`.
        classes: See `Predictor`.
    """

    def __init__(
        self,
        cfg: Config,
        model: Any,
        meta: dict[str, Any],
        score_thr: float | None,
        classes: Sequence[str],
    ) -> None:
        self.names: tuple[str, ...] = tuple(meta.get('classes') or ())
        if unknown := [name for name in classes if name not in self.names]:
            raise UserError(
                f'--classes {unknown[0]}: the model has no such class; it has '
                f'{join_first(self.names, 1000)}'
            )
        self.wanted = [self.names.index(name) for name in classes]
        self.score_thr = score_thr
        self.drawing = (cfg.get('default_hooks') or {}).get('visualization') or {}
        self.palette: Any = meta.get('palette') or ()
        self.visualizer: Any = None
        self.settings: dict[str, Any] = {}  # of the visualizer's add_datasample

    def read(self, sample: Any) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Return the result of a sample and its label map; remove from it what is not wanted."""
        raise NotImplementedError

    def draw(self, image: NDArray[np.uint8], sample: Any) -> NDArray[np.uint8]:
        """Draw the result of a sample."""
        self.visualizer.add_datasample('', image, sample, draw_gt=False, **self.settings)
        picture: NDArray[np.uint8] = self.visualizer.get_image()
        return picture

    def build_visualizer(self, cfg: Config, default: Any) -> Any:
        """Build the visualizer of the config, if it is of the host, without backends that write."""
        entry = ConfigView(cfg).entry(cfg.get('visualizer'), 'visualizer', 'VISUALIZERS')
        left_out = ('type', 'name', 'vis_backends', 'save_dir', '_scope_')
        settings = {key: value for key, value in entry.settings.items() if key not in left_out}
        visualizer = entry.kind(**settings) if entry.is_a(default) else default()
        visualizer.dataset_meta = dict(classes=self.names or None, palette=self.palette)
        return visualizer

    def name(self, label: int) -> str:
        """Return the name of a class.

        Raises:
            DataError: If the model has more classes than names.
        """
        if not self.names:
            return f'class {label}'
        if label >= len(self.names):
            raise DataError(
                f'the model predicts class {label}, which has no name: {len(self.names)} classes '
                f'are named ({join_first(self.names)}). Train with num_classes={len(self.names)}, '
                'or with a name for each class in metainfo.classes of the training set'
            )
        return self.names[label]


class DetectorResults(Results):
    """Boxes and masks, with the fields of mmdet's `DetInferencer`."""

    def __init__(self, cfg: Config, model: Any, *args: Any) -> None:
        from mmdet.apis import DetInferencer
        from mmdet.visualization import DetLocalVisualizer

        super().__init__(cfg, model, *args)
        self.palette = fill_palette(self.palette, len(self.names)) or 'random'
        threshold = -1 if self.score_thr is not None else self.drawing.get('score_thr', 0.3)
        self.settings = dict(pred_score_thr=threshold)
        self.visualizer = self.build_visualizer(cfg, DetLocalVisualizer)
        self.inferencer = DetInferencer.__new__(DetInferencer)  # __init__ would build a model.
        self.inferencer.model = model
        model.dataset_meta = self.visualizer.dataset_meta

    def read(self, sample: Any) -> tuple[dict[str, Any], None]:
        found = sample.pred_instances
        if self.score_thr is not None:
            found = found[found.scores >= self.score_thr]
        if self.wanted:
            found = found[torch.isin(found.labels, found.labels.new_tensor(self.wanted))]
        sample.pred_instances = found
        result = self.inferencer.pred2dict(sample)
        result['names'] = [self.name(label) for label in result['labels']]
        return result, None


class SegmentorResults(Results):
    """Label maps, and the share of each class."""

    def __init__(self, cfg: Config, model: Any, *args: Any) -> None:
        from mmseg.visualization import SegLocalVisualizer

        super().__init__(cfg, model, *args)
        if self.score_thr is not None:
            raise UserError('--score-thr: a segmentor has no scores to compare with it')
        count = len(self.names)
        if len(self.palette) != count:  # As mmseg's data sets do.
            self.palette = np.random.RandomState(42).randint(0, 255, (count, 3)).tolist()
        self.dtype = np.uint16 if count + bool(self.wanted) > 256 else np.uint8
        self.visualizer = self.build_visualizer(cfg, SegLocalVisualizer)

    def read(self, sample: Any) -> tuple[dict[str, Any], NDArray[Any]]:
        found = sample.pred_sem_seg.data
        shares = torch.bincount(found.flatten()) / found.numel()
        if self.wanted:
            kept = torch.isin(found, found.new_tensor(self.wanted))
            found = found.where(kept, found.new_tensor(np.iinfo(self.dtype).max))
            sample.pred_sem_seg.data = found
        named = {self.name(i): float(shares[i]) for i in shares.nonzero().flatten().tolist()}
        if self.wanted:
            named = {self.names[i]: named.get(self.names[i], 0.0) for i in self.wanted}
        return dict(shares=named), found[0].cpu().numpy().astype(self.dtype)


class ClassifierResults(Results):
    """The class of an image, or the classes of a multi-label head."""

    def __init__(self, cfg: Config, model: Any, *args: Any) -> None:
        from mmpretrain.models.heads import MultiLabelClsHead
        from mmpretrain.visualization import UniversalVisualizer

        super().__init__(cfg, model, *args)
        self.multiple = isinstance(getattr(model, 'head', None), MultiLabelClsHead)
        if self.score_thr is not None:
            if not self.multiple:
                raise UserError(
                    '--score-thr: this classifier gives every image one class; only classifiers '
                    'with a multi-label head have a threshold'
                )
            model.head.thr = self.score_thr
        self.visualizer = self.build_visualizer(cfg, UniversalVisualizer)

    def read(self, sample: Any) -> tuple[dict[str, Any], None]:
        scores, labels = sample.pred_score, sample.pred_label
        if self.wanted:
            wanted = labels.new_tensor(self.wanted)
            if self.multiple:
                labels = labels[torch.isin(labels, wanted)]
            else:
                labels = wanted[scores[wanted].argmax(0, keepdim=True)]
            sample.set_pred_label(labels)
        names = [self.name(label) for label in labels.tolist()]
        best = scores[labels].tolist()
        result: dict[str, Any] = dict(pred_scores=scores.tolist())
        if self.multiple:
            return result | dict(labels=labels.tolist(), scores=best, names=names), None
        return result | dict(pred_label=int(labels), pred_score=best[0], pred_class=names[0]), None

    def draw(self, image: NDArray[np.uint8], sample: Any) -> NDArray[np.uint8]:
        size = {k: v for k, v in self.drawing.items() if k in ('resize', 'rescale_factor')}
        return self.visualizer.visualize_cls(image, sample, draw_gt=False, **size)


RESULTS: dict[str, type[Results]] = dict(
    mmdet=DetectorResults, mmseg=SegmentorResults, mmpretrain=ClassifierResults
)
