"""Reads the results of each host, and draws them with its own visualizer."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from numpy.typing import NDArray

from ..config import ConfigView
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
        model.dataset_meta = dict(classes=self.names or None, palette=meta.get('palette'))

    def read(self, sample: Any) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Return the result of a sample and its label map; remove from it what is not wanted."""
        raise NotImplementedError

    def draw(self, image: NDArray[np.uint8], sample: Any) -> NDArray[np.uint8]:
        """Draw the result of a sample."""
        raise NotImplementedError

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


class _Detector(Results):
    def __init__(self, cfg: Config, model: Any, *args: Any) -> None:
        from mmdet.apis import DetInferencer
        from mmdet.visualization import DetLocalVisualizer

        super().__init__(cfg, model, *args)
        palette = model.dataset_meta['palette'] or 'random'
        if not isinstance(palette[0], (int, str)):  # A colour per class, which is a list in mmdet.
            palette = [*palette] if len(palette) >= len(self.names) else 'random'
        model.dataset_meta['palette'] = palette
        self.inferencer = _around(DetInferencer, cfg, model, DetLocalVisualizer)

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

    def draw(self, image: NDArray[np.uint8], sample: Any) -> NDArray[np.uint8]:
        threshold = -1 if self.score_thr is not None else self.drawing.get('score_thr', 0.3)
        return self.inferencer.visualize(
            [image], [sample], return_vis=True, pred_score_thr=threshold
        )[0]


class _Segmentor(Results):
    def __init__(self, cfg: Config, model: Any, *args: Any) -> None:
        from mmseg.apis import MMSegInferencer
        from mmseg.visualization import SegLocalVisualizer

        super().__init__(cfg, model, *args)
        if self.score_thr is not None:
            raise UserError('--score-thr: a segmentor has no scores to compare with it')
        count = len(self.names)
        if len(model.dataset_meta['palette'] or ()) != count:  # As mmseg's data sets do.
            colors = np.random.RandomState(42).randint(0, 255, (count, 3))
            model.dataset_meta['palette'] = colors.tolist()
        self.dtype = np.uint16 if count + bool(self.wanted) > 256 else np.uint8
        self.inferencer = _around(MMSegInferencer, cfg, model, SegLocalVisualizer)

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

    def draw(self, image: NDArray[np.uint8], sample: Any) -> NDArray[np.uint8]:
        return self.inferencer.visualize([image], [sample], return_vis=True)[0]


class _Classifier(Results):
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
        self.visualizer = _build_visualizer(cfg, UniversalVisualizer)

    def read(self, sample: Any) -> tuple[dict[str, Any], None]:
        scores, labels = sample.pred_score, sample.pred_label
        if self.wanted:
            wanted = labels.new_tensor(self.wanted)
            if self.multiple:
                labels = labels[torch.isin(labels, wanted)]
            else:
                labels = wanted[scores[wanted].argmax(0, keepdim=True)]
            sample.set_pred_label(labels)
        found = [self.name(label) for label in labels.tolist()]
        result: dict[str, Any] = dict(pred_scores=scores.tolist())
        if self.multiple:
            result |= dict(labels=labels.tolist(), scores=scores[labels].tolist(), names=found)
        else:
            label = int(labels)
            result |= dict(pred_label=label, pred_score=float(scores[label]), pred_class=found[0])
        return result, None

    def draw(self, image: NDArray[np.uint8], sample: Any) -> NDArray[np.uint8]:
        size = {k: v for k, v in self.drawing.items() if k in ('resize', 'rescale_factor')}
        return self.visualizer.visualize_cls(
            image, sample, classes=self.names or None, draw_gt=False, **size
        )


INFERENCERS: dict[str, type[Results]] = dict(
    mmdet=_Detector, mmseg=_Segmentor, mmpretrain=_Classifier
)


def _build_visualizer(cfg: Config, default: type) -> Any:
    """Build the visualizer of a config, without backends that write files."""
    settings = cfg.get('visualizer')
    kind = ConfigView(cfg).resolve(settings, 'VISUALIZERS')
    given = settings if isinstance(kind, type) and issubclass(kind, default) else {}
    return VISUALIZERS.build(
        dict(
            given,
            type=kind if given else default,
            name=f'predict-{time.time_ns()}',
            vis_backends=None,
        )
    )


def _around(base: Any, cfg: Config, model: Any, visualizer: type) -> Any:
    """Build an inferencer for a model with its weights, without the steps that load images."""

    class Inferencer(base):
        def _init_model(self, *args: Any) -> Any:
            return model

        def _init_pipeline(self, *args: Any) -> None:
            return None

        def _init_collate(self, *args: Any) -> None:
            return None

        def _init_visualizer(self, *args: Any) -> Any:
            return _build_visualizer(cfg, visualizer)

    inferencer = Inferencer(cfg)
    inferencer.visualizer.dataset_meta = model.dataset_meta
    return inferencer
