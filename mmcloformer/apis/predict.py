"""Prediction of image files with the hosts' own inferencers and visualisers."""

import glob
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import CheckpointLoader
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ..checks.channels import check_channels
from ..checks.heads import head_numbers
from ..checks.image import decode, error_text, file_problem, unreadable_reason
from ..config import ConfigView
from ..engine.loading import check_whole_model, unwrap_model
from ..errors import DataError, UserError, join_first
from ..models.bfloat16 import replace_backbones, require_bfloat16
from .config import image_color

# A file that ends in one of these is tried, and reported if it cannot be read.
SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'}
# Smaller than the coarsest stride, or narrowed to less by a resize that keeps the ratio.
_NARROW, _LONG = 32, 20
_NO_MEMORY = 'out of memory|(not enough|insufficient) memory|allocate'


class Prediction(NamedTuple):
    """Prediction for one image.

    Attributes:
        picture: The image with the result drawn on it, `(H, W, 3)`, RGB.
        result: JSON-compatible types. Boxes are x1, y1, x2, y2 in pixels, masks are COCO's RLE.
        labels: Class of every pixel, `(H, W)`; segmentors only.
    """

    picture: NDArray[np.uint8]
    result: dict[str, Any]
    labels: NDArray[np.uint8] | None = None

    def save(self, stem: Path) -> None:
        """Write `STEM.png`, `STEM.json` and a segmentor's `STEM_labels.png`."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.picture).save(f'{stem}.png')
        Path(f'{stem}.json').write_text(json.dumps(self.result))
        if self.labels is not None:
            Image.fromarray(self.labels).save(f'{stem}_labels.png')


Predictor = Callable[[Path], Prediction]
# Model, its predictor, and the names of its classes.
_Built = tuple[nn.Module, Predictor, Sequence[str]]


def build_predictor(cfg: Config, checkpoint: str, dtype: str = 'float32') -> Predictor:
    """Build a function that predicts an image file.

    Args:
        cfg: Config of a detector, segmentor or classifier.
        checkpoint: Path or URL of a checkpoint of the whole model.
        dtype: Of the backbone, `'float32'` or `'bfloat16'`.

    Raises:
        CheckpointError: If it cannot be read, is untrusted, or is for another model.
        ConfigError: As `check_channels`.
        UserError: If the config's `default_scope` is not one of the hosts, or the device has no
            units for bfloat16.
    """
    scope = cfg.get('default_scope')
    if scope not in _PREDICTORS:
        raise UserError(
            f'default_scope={scope!r} of the config is unknown; use one of {sorted(_PREDICTORS)}'
        )
    check_channels(cfg, ('test',))
    if dtype == 'bfloat16':
        require_bfloat16()
    init_default_scope(scope)
    model, predict, classes = _PREDICTORS[scope](cfg, checkpoint)
    if dtype == 'bfloat16':
        replace_backbones(model)

    def predict_named(path: Path) -> Prediction:
        try:
            return predict(path)
        except (IndexError, AssertionError) as error:
            # mmdet asserts that there is a colour per class.
            missing = isinstance(error, IndexError) or 'palette' in str(error)
            if missing and (problem := _unnamed_problem(cfg, classes)):
                raise DataError(f'{path} cannot be predicted: {problem}') from error
            raise

    return predict_named


def plan_files(images: str, out: str, label_maps: bool) -> dict[Path, Path]:
    """Find images and plan the files of their predictions.

    Args:
        images: A file, a folder (searched recursively), or a pattern with `*` or `**`. In a folder,
            files that are no images are left out, with a line about them on standard error.
        out: Folder for predictions; it gets the same subfolders as the images.
        label_maps: Whether the predictions have `labels`.

    Returns:
        For each image its `stem`, as `Prediction.save` takes it.

    Raises:
        UserError: If there are no images, or if a predicted file would overwrite an image, a file
            of another prediction, or any file in a folder of the images.
    """
    if not images or not out:
        raise UserError('the images or --out are an empty string; is a shell variable unset?')
    root = Path(images)
    if root.is_dir():
        found = _find_images(root)
    else:
        found = [root] if root.is_file() else [*map(Path, glob.glob(images, recursive=True))]
    # Broken links are kept, for `image_problem` to report.
    files = sorted(path for path in found if path.is_file() or not path.exists())
    if not files:
        raise UserError(f'{images}: found no image, folder of images or match of the pattern')
    if not root.is_dir():
        root = Path(os.path.commonpath([path.parent for path in files]))
    plan = {path: Path(out, path.relative_to(root)).with_suffix('') for path in files}
    _require_new_files(plan, ['.png', '.json', *(['_labels.png'] if label_maps else [])])
    return plan


def _find_images(folder: Path) -> list[Path]:
    """Return the files of a folder that OpenCV, which the hosts read images with, can read."""
    found, out = [], Counter[str]()
    for path in folder.rglob('*'):
        if path.suffix.lower() in SUFFIXES:
            found.append(path)
        elif path.is_file() and not path.name.startswith('.'):
            if cv2.haveImageReader(str(path)):
                found.append(path)
            else:
                out[path.suffix or 'without suffix'] += 1
    if out:
        listed = ', '.join(f'{count} {suffix}' for suffix, count in out.most_common())
        print(
            f'{out.total()} files in {folder} are left out; OpenCV cannot read them as images '
            f'({listed})',
            file=sys.stderr,
        )
    return found


def make_folders(stems: Iterable[Path]) -> None:
    """Create the folders of the files to be saved and check that they are writable.

    Raises:
        UserError: If one is not.
    """
    for folder in {stem.parent for stem in stems}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(
                f'cannot write to {folder} ({error.strerror}): use another --out'
            ) from error


def predict_file(predict: Predictor, path: Path) -> Prediction:
    """Predict an image, which may be damaged or of a size that the host cannot handle.

    Raises:
        DataError: If it cannot be read or predicted.
    """
    problem = image_problem(path)
    if problem is None:
        try:
            return predict(path)
        except UserError:
            raise
        except Exception as error:  # An error of the host must not stop the other images.
            problem = f'cannot be predicted{_likely_cause(path, error)}: {error_text(error)}'
            raise DataError(f'{path} {problem}') from error
    raise DataError(f'{path} {problem}')


def image_problem(path: Path) -> str | None:
    """Return why an image cannot be read, or None if it can."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return f'cannot be opened: {error.strerror}'
    if problem := file_problem(content):
        return problem
    try:
        image, problem = decode(lambda: mmcv.imfrombytes(content))
    except Exception as error:  # Of OpenCV, which also raises MemoryError.
        return unreadable_reason(content, error)
    return unreadable_reason(content) if image is None else problem


def _likely_cause(path: Path, error: Exception) -> str:
    """Return what the size of an image may have to do with an error of the host."""
    try:
        height, width = mmcv.imread(str(path)).shape[:2]
    except Exception:  # Too little memory to read it again.
        return ''
    size = f'{width}x{height} pixels'
    if isinstance(error, MemoryError) or re.search(_NO_MEMORY, str(error), re.IGNORECASE):
        return f', it is too large for the memory ({size})'
    if min(height, width) < _NARROW or max(height, width) > _LONG * min(height, width):
        return f', perhaps because it is too narrow ({size})'
    return ''


def _require_new_files(plan: dict[Path, Path], endings: list[str]) -> None:
    advice = 'use another --out, or give other names'
    folders = {os.path.realpath(path.parent) for path in plan}
    owners = {os.path.realpath(path): path for path in plan}
    for path, stem in plan.items():
        for ending in endings:
            file = f'{stem}{ending}'
            real = os.path.realpath(file)
            if real in owners:
                raise UserError(
                    f'{file}, to be written for {path}, is {owners[real]} or a file to be written '
                    f'for it: {advice}'
                )
            owners[real] = path
            if os.path.realpath(stem.parent) in folders and os.path.lexists(file):
                raise UserError(f'{file}, to be written for {path}, already exists: {advice}')


def _detector(cfg: Config, checkpoint: str) -> _Built:
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(cfg, checkpoint, show_progress=False)
    classes = _class_names(inferencer.model, cfg, _load_whole(inferencer.model, checkpoint))
    threshold = _drawing(cfg).get('score_thr', 0.3)

    def predict(path: Path) -> Prediction:
        out = inferencer(str(path), return_vis=True, pred_score_thr=threshold)
        result = dict(image=str(path), **out['predictions'][0])
        result['names'] = [classes[label] for label in result['labels']]
        return Prediction(out['visualization'][0], result)

    return inferencer.model, predict, classes


def _segmentor(cfg: Config, checkpoint: str) -> _Built:
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(cfg, checkpoint)
    inferencer.show_progress = False
    classes = _class_names(inferencer.model, cfg, _load_whole(inferencer.model, checkpoint))

    def predict(path: Path) -> Prediction:
        out = inferencer(str(path), return_vis=True)
        labels = out['predictions'].astype(np.uint8)
        counts = np.bincount(labels.ravel())
        shares = {classes[i]: counts[i] / labels.size for i in counts.nonzero()[0]}
        return Prediction(out['visualization'], dict(image=str(path), shares=shares), labels)

    return inferencer.model, predict, classes


def _classifier(cfg: Config, checkpoint: str) -> _Built:
    from mmpretrain import ImageClassificationInferencer

    # The inferencer itself loads all images in colour.
    color = image_color(cfg)
    backend = cfg.test_dataloader.dataset.pipeline[0].get('imdecode_backend') if color else None
    inferencer = ImageClassificationInferencer(cfg, checkpoint, get_device())
    _load_whole(inferencer.model, checkpoint)
    size = {k: v for k, v in _drawing(cfg).items() if k in ('resize', 'rescale_factor')}

    def predict(path: Path) -> Prediction:
        # Step by step, since calling it shows a progress bar. It draws only into a folder.
        image = mmcv.imread(str(path), flag=color or 'color', backend=backend)
        samples = inferencer.forward(next(inferencer.preprocess([image])))
        with tempfile.TemporaryDirectory() as folder:
            picture = inferencer.visualize([str(path)], samples, show_dir=folder, **size)[0]
        result = inferencer.postprocess(samples, None)[0]
        result['pred_scores'] = result['pred_scores'].tolist()
        return Prediction(picture, dict(image=str(path), **result))

    return inferencer.model, predict, inferencer.classes or ()


_PREDICTORS: dict[str, Callable[[Config, str], _Built]] = {
    'mmdet': _detector,
    'mmseg': _segmentor,
    'mmpretrain': _classifier,
}


def _unnamed_problem(cfg: Config, classes: Sequence[str]) -> str | None:
    """Return which head has more classes than the checkpoint has names, or None."""
    for field, found, number in head_numbers(ConfigView(cfg)):
        if classes and number > len(classes):
            return (
                f'the model predicts a class without a name, as {field} is {found} but the '
                f'checkpoint names {len(classes)} classes ({join_first(classes)}); train with '
                f'{field}={len(classes)}, or with a name for each class in metainfo.classes of '
                'the training set'
            )
    return None


def _drawing(cfg: Config) -> dict[str, Any]:
    """Return the settings with which `tools/test.py --show-dir` draws."""
    return cfg.get('default_hooks', {}).get('visualization', {})


def _load_whole(model: nn.Module, checkpoint: str) -> dict[str, Any]:
    """Load all weights; the inferencers ignore those that they cannot assign.

    Returns:
        Content of the checkpoint file.
    """
    loaded: dict[str, Any] = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    unwrap_model(model).load_state_dict(check_whole_model(model, loaded, checkpoint))
    return loaded


def _class_names(model: nn.Module, cfg: Config, loaded: dict[str, Any]) -> Sequence[str]:
    """Return the class names of the checkpoint or, if it has none, of the config.

    The inferencers would use those of COCO or Cityscapes for such a checkpoint.
    """
    meta: dict[str, Any] = model.dataset_meta  # type: ignore[assignment]
    if not {'dataset_meta', 'CLASSES'} & loaded.get('meta', {}).keys():
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True))
        meta.update((key, dataset.metainfo[key]) for key in meta)
    classes: Sequence[str] = meta['classes']
    return classes
