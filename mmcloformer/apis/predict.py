"""Prediction of image files with the hosts' own pipelines and visualizers."""

import json
import mimetypes
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.fileio import get_local_path
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from PIL import Image

from ..checks.channels import check_channels
from ..checks.image import decode, error_text, file_problem, unreadable_reason
from ..config import ConfigView
from ..errors import DataError
from ..models.deploy import replace_backbones, require_dtype
from .config import inference_steps, load_trained
from .files import Source
from .results import RESULTS


class NotAnImageError(DataError):
    """A file is neither an image nor a video, by its content and by its name."""


class Prediction(NamedTuple):
    """Prediction for one image.

    Attributes:
        picture: The image with the result drawn on it, `(H, W, 3)`, RGB; None if not wanted.
        result: JSON-compatible types. Boxes are x1, y1, x2, y2 in pixels, masks are COCO's RLE.
        labels: Class of every pixel, `(H, W)`; segmentors only. It has 16 bits if there are more
            than 256 classes.
    """

    picture: NDArray[np.uint8] | None
    result: dict[str, Any]
    labels: NDArray[np.uint8 | np.uint16] | None = None

    def save(self, stem: Path) -> None:
        """Write `STEM.png`, `STEM.json` and a segmentor's `STEM_labels.png`."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        if self.picture is not None:
            Image.fromarray(self.picture).save(f'{stem}.png')
        Path(f'{stem}.json').write_text(json.dumps(self.result))
        if self.labels is not None:
            Image.fromarray(self.labels).save(f'{stem}_labels.png')


class ImageReader:
    """Loads images with the config's own test pipeline, and says why one cannot be loaded.

    Args:
        cfg: Config of a host.

    Raises:
        ConfigError: If the config is of no host, or as `inference_steps` and `check_channels`.
    """

    def __init__(self, cfg: Config) -> None:
        view = ConfigView(cfg)
        self.host = view.require_host()
        check_channels(cfg, ('test',))
        init_default_scope(view.scope)
        self.steps = Compose([dict(step.settings) for step in inference_steps(cfg)]).transforms

    def reads(self, path: str) -> bool:
        """Return whether a file is an image that the pipeline loads; a URL counts as one."""
        try:
            return '://' in path or bool(self.load(path))
        except DataError:
            return False

    def load(self, path: str) -> tuple[dict[str, Any], int]:
        """Run the steps that load an image.

        Returns:
            The results, of which `img` is the image, and the number of steps run.

        Raises:
            DataError: If the file is damaged or the pipeline cannot load it.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise DataError(f'cannot be opened: {error.strerror}') from error
        problem = file_problem(content)
        if problem is None:
            try:
                loaded, problem = decode(lambda: self._load(path))
            except AssertionError:  # The host's decoder returned nothing.
                problem = unreadable_reason(content)
            except Exception as error:  # Decoders raise errors of any kind.
                problem = unreadable_reason(content, error)
        if problem is None:
            return loaded
        is_meant = _kind_by_name(path) in ('image', 'video') or cv2.haveImageReader(path)
        raise (DataError if is_meant else NotAnImageError)(problem)

    def _load(self, path: str) -> tuple[dict[str, Any], int]:
        results: dict[str, Any] | None = dict(img_path=path, img_id=0)
        for number, step in enumerate(self.steps, 1):
            results = step(results)
            if results is None:
                break
            if results.get('img') is not None:
                return results, number
        raise AssertionError('no image was loaded')


class Predictor:
    """Predicts image files with a trained model.

    Args:
        cfg: Config of a detector, segmentor or classifier.
        checkpoint: Path or URL of a checkpoint of the whole model.
        dtype: Of the backbone, `'float32'`, `'bfloat16'` or `'float16'`.
        score_thr: Lowest score of the results of a detector or a multi-label classifier. By
            default, detectors return all results and draw those that testing draws, and
            classifiers use the threshold of their head.
        classes: Names of the classes to predict, by default all. A classifier of one label returns
            the best of them, and a label map holds its highest number elsewhere.
        pictures: Whether to draw the results.
        reader: The `ImageReader` of the config, if there is one already.

    Raises:
        CheckpointError: If it cannot be read, is untrusted, or is for another model.
        ConfigError: As `ImageReader`.
        UserError: If the model has no such classes or no threshold, or the device has no units
            for the dtype.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        dtype: str = 'float32',
        *,
        score_thr: float | None = None,
        classes: Sequence[str] = (),
        pictures: bool = True,
        reader: ImageReader | None = None,
    ) -> None:
        self.reader = reader or ImageReader(cfg)
        require_dtype(dtype)
        self.model, meta = load_trained(cfg, checkpoint)
        if dtype != 'float32':
            replace_backbones(self.model, dtype)
        self.model.to(get_device())
        self.pictures = pictures
        self.results = RESULTS[self.reader.host](cfg, self.model, meta, score_thr, classes)

    def __call__(self, path: str | Path, name: str | None = None) -> Prediction:
        """Predict one image.

        Args:
            path: The file.
            name: What messages and the result call it, by default `path`.

        Raises:
            DataError: If it cannot be read or predicted.
        """
        name = name or str(path)
        try:
            results, loading = self.reader.load(str(path))
        except DataError as error:
            raise type(error)(f'{name} {error}') from error
        image = results['img']
        _note_pages(path, name, image)
        # mmcv's decoders return BGR; tifffile returns what is in the file.
        backend = getattr(self.reader.steps[loading - 1], 'imdecode_backend', None)
        rgb = _to_rgb(image, is_bgr=backend != 'tifffile')
        try:
            for step in self.reader.steps[loading:]:
                results = step(results)
            with torch.no_grad():
                (sample,) = self.model.test_step(pseudo_collate([results]))
            result, labels = self.results.read(sample)
            picture = self.results.draw(rgb, sample) if self.pictures else None
        except Exception as error:  # An error of the host must not stop the other images.
            size = f'{image.shape[1]}x{image.shape[0]} pixels'
            raise DataError(f'{name} ({size}) cannot be predicted: {error_text(error)}') from error
        return Prediction(picture, dict(image=name, **result), labels)


def predict_source(
    predict: Predictor, source: Source
) -> Iterator[tuple[Path, Prediction | DataError]]:
    """Predict an image, or every frame of a video.

    Args:
        predict: The predictor.
        source: File or URL. What the pipeline does not load is read as a video.

    Yields:
        The `stem` for the files, and the prediction, or why there is none.
    """
    is_remote = '://' in source.path
    try:
        with get_local_path(source.path) if is_remote else nullcontext(source.path) as path:
            error = None
            if _kind_by_name(source.path) != 'video':
                try:
                    yield source.stem, predict(path, source.path)
                    return
                except NotAnImageError as found:
                    error = found
            video = mmcv.VideoReader(path)
            if video.opened and video.frame_cnt > 0:
                yield from _predict_frames(predict, video, source)
            else:
                raise error or DataError(f'{source.path} cannot be read as a video')
    except DataError as found:
        yield source.stem, found
    # Raised by the host's file backend.
    except (OSError, KeyError, ImportError, HTTPException) as found:
        yield source.stem, DataError(f'{source.path} cannot be opened: {error_text(found)}')


def _predict_frames(
    predict: Predictor, video: mmcv.VideoReader, source: Source
) -> Iterator[tuple[Path, Prediction | DataError]]:
    number = -1
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, 'frame.png')
        for number, frame in enumerate(video):
            stem = source.video / f'{number:06d}'
            mmcv.imwrite(frame, file)  # For the pipeline, which reads files.
            try:
                prediction = predict(file, f'{source.path} (frame {number})')
                prediction.result.update(image=source.path, frame=number)
                yield stem, prediction
            except DataError as error:
                yield stem, error
    if number + 1 < video.frame_cnt:
        raise DataError(
            f'{source.path} is damaged: {number + 1} of {video.frame_cnt} frames can be read'
        )


def _kind_by_name(path: str) -> str:
    return (mimetypes.guess_type(path)[0] or '').partition('/')[0]


def _note_pages(path: str | Path, name: str, image: NDArray[Any]) -> None:
    """Say on standard error that only the first page of a file was loaded."""
    # Pillow does not know the format, or warns of its size.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with Image.open(path) as file:
            pages, size = getattr(file, 'n_frames', 1), file.size
        if pages > 1 and sorted(size) == sorted(image.shape[:2]):
            print(f'{name} has {pages} pages, of which the first is predicted', file=sys.stderr)


def _to_rgb(image: NDArray[Any], is_bgr: bool) -> NDArray[np.uint8]:
    """Return the picture to draw on: the first three bands of an image with more."""
    image = image[..., None] if image.ndim == 2 else image
    bands = image[..., [0, 1, 2] if image.shape[2] > 2 else [0, 0, 0]]
    if is_bgr and image.shape[2] in (3, 4):
        bands = bands[..., ::-1]
    low, high = float(bands.min()), float(bands.max())
    if bands.dtype != np.uint8 and not 0 <= low <= 1 < high <= 255:
        bands = (bands.astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    return np.ascontiguousarray(bands, np.uint8)
