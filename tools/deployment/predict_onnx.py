#!/usr/bin/env python
"""Run a model exported by export_onnx.py on images, without torch and the OpenMMLab packages.

This single file needs numpy, opencv and onnxruntime, and Pillow if the test pipeline uses it (as
for ImageNet). It writes one JSON file with a result for each image, under the names that predict.py
uses: boxes are x1, y1, x2, y2 in pixels, masks are COCO's RLE. With --annotations, the results of a
detector have COCO's format and ids. The label maps of a segmentor are PNG files.
"""

import argparse
import json
import mimetypes
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (H, W, 3), BGR; (H, W) if grey
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Fields = dict[str, Any]

METADATA_KEYS = (
    'task', 'classes', 'multi_label', 'color_type', 'channels', 'mean', 'std', 'steps',
)  # fmt: skip
READ_FLAGS = {
    'color': cv2.IMREAD_COLOR,
    'grayscale': cv2.IMREAD_GRAYSCALE,
    'unchanged': cv2.IMREAD_UNCHANGED,
    'color_ignore_orientation': cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    'grayscale_ignore_orientation': cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
}
CV2_MODES = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}


class Model:
    """An exported model and the metadata stored in its file."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # The errors of onnxruntime share no other base class.
            sys.exit(
                f'error: onnxruntime {onnxruntime.__version__} cannot load {path}: the file is cut '
                f'short, or it needs a newer onnxruntime ({last_line(error)})'
            )
        properties = self.session.get_modelmeta().custom_metadata_map
        if 'task' not in properties:
            sys.exit(f'error: {path} was not written by export_onnx.py: its metadata has no task')
        self.metadata = {key: json.loads(properties[key]) for key in METADATA_KEYS}
        self.names = self.metadata['classes']
        if self.metadata['color_type'] not in READ_FLAGS:
            sys.exit(
                f'error: {path} was exported from a config that loads images with another class '
                f'than LoadImageFromFile, or as float32, which this script cannot do'
            )

    def __call__(self, image: Pixels) -> Fields:
        """Return the result of one image under the names of predict.py, and its `class_map`."""
        resized = image
        for step in self.metadata['steps']:
            resized = apply_step(resized, step)
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, {'images': self.normalise(resized)})))
        if 'probabilities' in outputs:
            return classify(outputs['probabilities'][0], self.names, self.metadata['multi_label'])
        (height, width), (rows, columns) = image.shape[:2], resized.shape[:2]
        if 'class_map' in outputs:
            found = outputs['class_map'][0, :rows, :columns].astype(np.int32)
            found = cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST)
            labels, counts = np.unique(found, return_counts=True)
            shares = (counts / counts.sum()).tolist()
            return dict(shares=dict(zip(named(labels, self.names), shares)), class_map=found)
        factors = np.array([width / columns, height / rows] * 2, np.float32)
        boxes = outputs['boxes'] * factors
        is_padded = any(step['type'] == 'Fit' for step in self.metadata['steps'])
        shown = boxes.clip(0, [width, height] * 2) if is_padded else boxes
        result = dict(
            labels=outputs['labels'].tolist(),
            scores=outputs['scores'].tolist(),
            bboxes=shown.tolist(),
            names=named(outputs['labels'], self.names),
        )
        if 'masks' in outputs:
            pairs = zip(outputs['masks'], boxes)
            result['masks'] = [encode(paste(mask, box, height, width)) for mask, box in pairs]
        return result

    def normalise(self, image: Pixels) -> Floats:
        """Return the input `(1, C, H, W)`, padded with zeros if the model has a fixed size."""
        if image.ndim == 2:
            image = image[..., None]
        if self.metadata['channels'] == 'RGB':
            image = image[..., ::-1]
        mean, std = (np.float32(self.metadata[key]) for key in ('mean', 'std'))
        tensor = ((image - mean) / std).transpose(2, 0, 1)
        fixed = self.session.get_inputs()[0].shape[2:]
        if isinstance(fixed[0], int):
            padding = [(0, target - size) for target, size in zip(fixed, tensor.shape[1:])]
            if self.metadata['task'] == 'classification' and padding != [(0, 0)] * 2:
                raise ValueError(
                    f'the model takes {fixed[0]}x{fixed[1]} pixels, but its pipeline makes images '
                    f'of {tensor.shape[1]}x{tensor.shape[2]}; export it with this --shape'
                )
            tensor = np.pad(tensor, [(0, 0), *padding])
        return np.ascontiguousarray(tensor[None])


def last_line(error: Exception) -> str:
    return str(error).strip().rpartition('\n')[2]


def named(labels: NDArray[Any], names: list[str]) -> list[str]:
    return [names[label] if names else f'class {label}' for label in labels.tolist()]


def classify(scores: Floats, names: list[str], multi_label: Fields | None) -> Fields:
    """Return the result for the scores of all classes."""
    result: Fields = dict(pred_scores=scores.tolist())
    best = scores.argsort()[::-1]
    if multi_label is None:
        return result | dict(
            pred_label=int(best[0]),
            pred_score=float(scores[best[0]]),
            pred_class=named(best[:1], names)[0],
        )
    thr = multi_label.get('thr')
    labels = best[: multi_label['topk']] if thr is None else np.flatnonzero(scores >= thr)
    return result | dict(
        labels=labels.tolist(), scores=scores[labels].tolist(), names=named(labels, names)
    )


def apply_step(image: Pixels, step: Fields) -> Pixels:
    """Crop or resize as mmcv and mmpretrain do, but never to less than one pixel."""
    height, width = image.shape[:2]
    if step['type'] == 'CenterCrop':
        size = step['crop_size']
        columns, rows = (size, size) if isinstance(size, int) else size
        top, left = max(0, round((height - rows) / 2)), max(0, round((width - columns) / 2))
        return image[top : top + rows, left : left + columns]
    columns, rows = (max(1, side) for side in resized_to(height, width, step))
    if step['backend'] == 'pillow':
        from PIL import Image

        mode = Image.Resampling[step['interpolation'].upper()]
        return np.asarray(Image.fromarray(image).resize((columns, rows), mode))
    return cv2.resize(image, (columns, rows), interpolation=CV2_MODES[step['interpolation']])


def resized_to(height: int, width: int, step: Fields) -> tuple[int, int]:
    """Return the width and height to which a step resizes an image."""
    scale: Any = step.get('scale')
    if step['type'] == 'ResizeEdge':
        fits_width = dict(short=width < height, long=width > height, width=True)
        if fits_width.get(step['edge']):
            return scale, int(scale * height / width)
        return int(scale * width / height), scale
    scale = (scale, scale) if isinstance(scale, int) else scale
    if step['type'] == 'Fit':
        factor = min(step['shape'][0] / height, step['shape'][1] / width)
    elif step['keep_ratio']:
        short, long = sorted(scale)
        factor = min(long / max(height, width), short / min(height, width))
    else:
        return tuple(scale)
    return int(width * factor + 0.5), int(height * factor + 0.5)


def paste(mask: Floats, box: Floats, height: int, width: int) -> Mask:
    """Interpolate a mask on a grid over the box bilinearly to a mask `(height, width)`."""
    columns, rows = (
        interpolation_matrix(mask.shape[1 - axis], box[axis], box[axis + 2], size)
        for axis, size in ((0, width), (1, height))
    )
    return rows @ mask @ columns.T >= 0.5


def interpolation_matrix(samples: int, start: float, stop: float, length: int) -> Floats:
    """Return the weights `(length, samples)` of samples between start and stop at each pixel."""
    pixels = np.arange(length, dtype=np.float32) + 0.5
    position = (pixels - start) / max(stop - start, 1e-6) * samples - 0.5
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(samples, dtype=np.float32)))


def encode(mask: Mask) -> Fields:
    """Return the compressed RLE of a mask, as `rleToString` in pycocotools' maskApi.c does."""
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


def to_coco(result: Fields, image_id: int, category_ids: list[int]) -> list[Fields]:
    """Return the result of a detector in COCO's format."""
    records = []
    for i, (x1, y1, x2, y2) in enumerate(result['bboxes']):
        label = result['labels'][i]
        record = dict(
            image_id=image_id,
            category_id=category_ids[label],
            category=result['names'][i],
            bbox=[x1, y1, x2 - x1, y2 - y1],
            score=result['scores'][i],
        )
        if 'masks' in result:
            record['segmentation'] = result['masks'][i]
        records.append(record)
    return records


def write_map(class_map: NDArray[np.int32], path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = np.uint8 if class_map.max() < 256 else np.uint16
    if not cv2.imwrite(str(path), class_map.astype(kind)):
        raise OSError(f'the class map {path} cannot be written')
    return str(path)


def find_files(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files of a folder that are not hidden, in links to folders too."""
    real = os.path.realpath(folder)
    for path in sorted(folder.iterdir()) if real not in above else ():
        if path.name.startswith('.'):
            continue
        if path.is_dir():
            yield from find_files(path, (*above, real))
        else:
            yield path


def find_images(path: Path) -> dict[Path, str]:
    """Return the images of a folder, or one image, with their paths relative to the folder."""
    if not path.is_dir():
        return {path: path.name}
    images, left_out = {}, 0
    for file in find_files(path):
        kind = mimetypes.guess_type(file.name)[0] or ''
        if file.is_file() and not kind.startswith('image/') and not cv2.haveImageReader(str(file)):
            left_out += 1
        else:
            images[file] = file.relative_to(path).as_posix()
    if not images:
        sys.exit(f'error: {path} contains no images that opencv can read')
    if left_out:
        print(f'{left_out} files in {path} are left out, as they are no images', file=sys.stderr)
    return images


def read_image(path: Path, flag: int) -> Pixels:
    image = cv2.imdecode(np.frombuffer(path.read_bytes() or b'\0', np.uint8), flag)
    if image is None:
        raise ValueError('opencv cannot read this file as an image')
    return image


def read_ids(
    path: Path, classes: list[str], names: Iterable[str]
) -> tuple[dict[str, int], list[int]]:
    """Return the ids of images by `names`, and of `classes`, in a COCO file."""
    try:
        known = json.loads(path.read_text())
        image_ids = {image['file_name']: image['id'] for image in known['images']}
        by_class = {category['name']: category['id'] for category in known['categories']}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f'error: --annotations {path} cannot be read as a COCO file ({error!r})')
    for kind, wanted, given in (
        ('classes of the model', classes, by_class),
        ('images, by their paths relative to the folder', [*names], image_ids),
    ):
        if missing := [name for name in wanted if name not in given]:
            sys.exit(
                f'error: --annotations {path} lacks {len(missing)} of the {len(wanted)} {kind}, '
                f'for example {missing[0]!r}; it has {", ".join(map(repr, [*given][:3]))}'
            )
    return image_ids, [by_class[name] for name in classes]


def require_writable(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open('a').close()
    except OSError as error:
        sys.exit(f'error: --out {out} cannot be written: {error.strerror}; give another file')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('model', type=Path, metavar='MODEL.onnx')
    parser.add_argument('images', type=Path, metavar='IMAGE|DIR')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument(
        '--annotations',
        type=Path,
        help='COCO file with image and category ids: write the results of a detector in its format',
    )
    parser.add_argument('--threads', type=int, default=0, help='default: one per core')
    args = parser.parse_args()

    if not args.model.is_file():
        sys.exit(f'error: {args.model} does not exist')
    images = find_images(args.images)
    model = Model(args.model, args.threads)
    is_detector = model.metadata['task'] in ('detection', 'instance segmentation')
    if args.annotations and is_detector:
        image_ids, category_ids = read_ids(args.annotations, model.names, images.values())
    require_writable(args.out)
    records, failed = [], 0
    for path, name in images.items():
        try:
            image = read_image(path, READ_FLAGS[model.metadata['color_type']])
            result = dict(image=str(path), **model(image))
            if 'class_map' in result:
                file = args.out.with_name(f'{args.out.stem}_maps') / f'{name}.png'
                result['class_map'] = write_map(result['class_map'], file)
            if args.annotations and is_detector:
                records += to_coco(result, image_ids[name], category_ids)
            else:
                records.append(result)
        except Exception as error:  # The errors of onnxruntime share no other base class.
            failed += 1
            print(f'{path}: {last_line(error)} ({type(error).__name__})', file=sys.stderr)
    args.out.write_text(json.dumps(records))
    print(f'{len(images) - failed} images, results in {args.out}')
    if failed:
        sys.exit(f'error: {failed} of {len(images)} images have no result; see the messages above')


if __name__ == '__main__':
    main()
