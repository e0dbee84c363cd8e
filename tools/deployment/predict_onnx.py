#!/usr/bin/env python
"""Run what export_onnx.py wrote on images, without torch and without the OpenMMLab packages.

It needs numpy, opencv and onnxruntime (and Pillow for ImageNet classifiers, whose images Pillow
resizes), and can be copied alone to where the model goes. Results go into one JSON file: for
detectors a list in COCO's format of results, which pycocotools scores; for classifiers the five
best classes an image; for segmentors a map of class numbers an image, as PNG files beside it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (H, W, 3), BGR
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Fields = dict[str, Any]

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}
DESCRIPTION = ('task', 'classes', 'channels', 'mean', 'std', 'steps')
CV2_MODES = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}


class Model:
    """An exported model and the description that it carries."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
        properties = self.session.get_modelmeta().custom_metadata_map
        if 'task' not in properties:
            sys.exit(f'error: {path} is no model of export_onnx.py: it does not tell its task')
        self.about = {key: json.loads(properties[key]) for key in DESCRIPTION}
        self.names = self.about['classes']

    def __call__(self, image: Pixels) -> Fields:
        """Results by name, in pixels of the image."""
        resized = image
        for step in self.about['steps']:
            resized = STEPS[step['type']](resized, step)
        outputs = self.session.run(None, {'images': self.normalise(resized)})
        results = dict(zip((output.name for output in self.session.get_outputs()), outputs))
        if self.about['task'] == 'classification':
            return results
        if self.about['task'] == 'semantic segmentation':
            return self._maps(results, image, resized)
        return self._instances(results, image, resized)

    def normalise(self, image: Pixels) -> Floats:
        """Input `(1, 3, H, W)`, padded with zeros where the model's size is fixed."""
        if self.about['channels'] == 'RGB':
            image = image[..., ::-1]
        mean, std = (np.float32(self.about[key]) for key in ('mean', 'std'))
        tensor = ((image - mean) / std).transpose(2, 0, 1)
        fixed = self.session.get_inputs()[0].shape[2:]
        if isinstance(fixed[0], int):
            margins = [(0, want - have) for want, have in zip(fixed, tensor.shape[1:])]
            tensor = np.pad(tensor, [(0, 0), *margins])
        return np.ascontiguousarray(tensor[None])

    @staticmethod
    def _maps(results: Fields, image: Pixels, resized: Pixels) -> Fields:
        (height, width), (inner_height, inner_width) = image.shape[:2], resized.shape[:2]
        inner = results['class_map'][0, :inner_height, :inner_width].astype(np.int32)
        return dict(class_map=cv2.resize(inner, (width, height), interpolation=cv2.INTER_NEAREST))

    @staticmethod
    def _instances(results: Fields, image: Pixels, resized: Pixels) -> Fields:
        (height, width), (inner_height, inner_width) = image.shape[:2], resized.shape[:2]
        factors = np.array([width / inner_width, height / inner_height] * 2, np.float32)
        results['boxes'] = (results['boxes'] * factors).clip(0, [width, height] * 2)
        if 'masks' in results:
            pairs = zip(results['masks'], results['boxes'])
            results['masks'] = [paste(mask, box, height, width) for mask, box in pairs]
        return results


def resize(image: Pixels, width: int, height: int, step: Fields) -> Pixels:
    """Resize as mmcv does, but to one pixel where it fails for none."""
    size = max(1, width), max(1, height)
    if step['backend'] == 'pillow':
        from PIL import Image

        mode = Image.Resampling[step['interpolation'].upper()]
        return np.asarray(Image.fromarray(image).resize(size, mode))
    return cv2.resize(image, size, interpolation=CV2_MODES[step['interpolation']])


def scale_by(image: Pixels, factor: float, step: Fields) -> Pixels:
    height, width = image.shape[:2]
    return resize(image, int(width * factor + 0.5), int(height * factor + 0.5), step)


def resize_step(image: Pixels, step: Fields) -> Pixels:
    if not step['keep_ratio']:
        scale = step['scale']
        width, height = (scale, scale) if isinstance(scale, int) else scale
        return resize(image, width, height, step)
    (short, long), sides = sorted(step['scale']), image.shape[:2]
    return scale_by(image, min(long / max(sides), short / min(sides)), step)


def resize_edge_step(image: Pixels, step: Fields) -> Pixels:
    height, width = image.shape[:2]
    fit_width = {'short': width < height, 'long': width > height}.get(step['edge'])
    if fit_width or step['edge'] == 'width':
        return resize(image, step['scale'], int(step['scale'] * height / width), step)
    return resize(image, int(step['scale'] * width / height), step['scale'], step)


def center_crop_step(image: Pixels, step: Fields) -> Pixels:
    size = step['crop_size']
    width, height = (size, size) if isinstance(size, int) else size
    top, left = (max(0, round((a - b) / 2)) for a, b in zip(image.shape, (height, width)))
    return image[top : top + height, left : left + width]


def fit_step(image: Pixels, step: Fields) -> Pixels:
    return scale_by(image, min(a / b for a, b in zip(step['shape'], image.shape)), step)


STEPS = {
    'Resize': resize_step,
    'ResizeEdge': resize_edge_step,
    'CenterCrop': center_crop_step,
    'Fit': fit_step,
}


def paste(mask: Floats, box: Floats, height: int, width: int) -> Mask:
    """Mask `(height, width)` of the image from one on a grid over the box, bilinearly."""
    columns, rows = (
        interpolation(mask.shape[1 - axis], box[axis], box[axis + 2], size)
        for axis, size in ((0, width), (1, height))
    )
    return rows @ mask @ columns.T >= 0.5


def interpolation(samples: int, start: float, stop: float, length: int) -> Floats:
    """Weights `(length, samples)` of the samples between start and stop at each pixel."""
    pixels = np.arange(length, dtype=np.float32) + 0.5
    position = (pixels - start) / max(stop - start, 1e-6) * samples - 0.5
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(samples, dtype=np.float32)))


def encode(mask: Mask) -> Fields:
    """COCO's compressed run lengths of a mask (`rleToString` of pycocotools' maskApi.c)."""
    pixels = np.concatenate([[False], mask.T.ravel(), [not mask[-1, -1]]])
    runs = np.diff(np.flatnonzero(np.diff(pixels)), prepend=0).tolist()
    text = ''
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return dict(size=list(mask.shape), counts=text)


def to_coco(
    results: Fields, names: list[str], image_id: int | str, category_ids: list[int]
) -> list[Fields]:
    """Results of one image in COCO's format."""
    records = []
    for i, (box, score, label) in enumerate(
        zip(results['boxes'].tolist(), results['scores'].tolist(), results['labels'].tolist())
    ):
        x1, y1, x2, y2 = box
        record = dict(
            image_id=image_id,
            category_id=category_ids[label],
            category=names[label],
            bbox=[x1, y1, x2 - x1, y2 - y1],
            score=score,
        )
        if 'masks' in results:
            record['segmentation'] = encode(results['masks'][i])
        records.append(record)
    return records


def to_ranking(results: Fields, names: list[str], file: str) -> list[Fields]:
    """The best classes of one image."""
    probabilities = results['probabilities'][0]
    best = probabilities.argsort()[::-1][:5].tolist()
    classes = [dict(label=i, name=names[i], probability=float(probabilities[i])) for i in best]
    return [dict(image=file, classes=classes)]


def to_map(results: Fields, names: list[str], file: str, folder: Path) -> list[Fields]:
    """Write the map of one image and count its pixels by class."""
    class_map = results['class_map']
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{file}.png'
    written = class_map.astype(np.uint8 if len(names) <= 256 else np.uint16)
    if not cv2.imwrite(str(path), written):
        raise OSError(f'its map {path} cannot be written')
    labels, counts = np.unique(class_map, return_counts=True)
    pixels = {names[label]: count for label, count in zip(labels.tolist(), counts.tolist())}
    return [dict(image=file, class_map=str(path), pixels=pixels)]


def find_images(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    images = sorted(p for p in path.glob('*') if p.suffix.lower() in SUFFIXES)
    if not images:
        sys.exit(f'error: no image in {path}')
    return images


def read_image(path: Path) -> Pixels:
    """The image, turned as its EXIF data say."""
    image = cv2.imdecode(np.frombuffer(path.read_bytes() or b'\0', np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError('not an image that opencv can read')
    return image


def read_ids(path: Path | None, names: list[str]) -> tuple[dict[str, int], list[int]]:
    """A COCO file's id of each image by its name, and of each of the named classes."""
    if path is None:
        return {}, list(range(len(names)))
    try:
        known = json.loads(path.read_text())
        image_ids = {image['file_name']: image['id'] for image in known['images']}
        by_name = {category['name']: category['id'] for category in known['categories']}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f'error: --annotations {path} is no COCO file that can be read ({error!r})')
    missing = [name for name in names if name not in by_name]
    if missing:
        sys.exit(
            f'error: --annotations {path} lacks {len(missing)} of the {len(names)} classes of the '
            f'model, {missing[0]!r} for one: give the file of a data set with the same classes'
        )
    return image_ids, [by_name[name] for name in names]


def require_writable(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open('a').close()
    except OSError as error:
        sys.exit(f'error: --out {out} cannot be written: {error.strerror}; name another file')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('model', type=Path, metavar='MODEL.onnx')
    parser.add_argument('images', type=Path, metavar='IMAGE|DIR')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument(
        '--annotations', type=Path, help='COCO file whose ids of images and classes to use'
    )
    parser.add_argument('--threads', type=int, default=0, help='default: one a core')
    args = parser.parse_args()

    if not args.model.is_file():
        sys.exit(f'error: {args.model} does not exist')
    paths = find_images(args.images)
    model = Model(args.model, args.threads)
    image_ids, category_ids = read_ids(args.annotations, model.names)
    require_writable(args.out)
    records, failed = [], 0
    for path in paths:
        try:
            results = model(read_image(path))
            if 'probabilities' in results:
                records += to_ranking(results, model.names, path.name)
            elif 'class_map' in results:
                folder = args.out.with_name(f'{args.out.stem}_maps')
                records += to_map(results, model.names, path.name, folder)
            else:
                image_id = image_ids.get(path.name, path.name)
                records += to_coco(results, model.names, image_id, category_ids)
        except Exception as error:  # onnxruntime's have no other base; the rest is still wanted.
            failed += 1
            print(f'{path}: {str(error).strip()} ({type(error).__name__})', file=sys.stderr)
    args.out.write_text(json.dumps(records))
    print(f'{len(paths) - failed} images, results in {args.out}')
    if failed:
        sys.exit(f'error: {failed} of {len(paths)} images have no result; they are listed above')


if __name__ == '__main__':
    main()
