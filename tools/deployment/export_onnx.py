#!/usr/bin/env python
"""Export a trained model to ONNX, run the file in onnxruntime and compare it with PyTorch.

The exit code is 1 if the results differ by more than the tolerance; the file is kept.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import onnxruntime
from mmengine.config import Config
from PIL import Image

import mmcloformer  # before mmdet, mmseg and mmpretrain: it may install the mmcv operators
from mmcloformer.analysis.complexity import DEFAULT_SHAPES
from mmcloformer.apis.cli import add_cfg_options, exit_on_user_error
from mmcloformer.apis.config import image_channels, inference_steps, load_trained, read_config
from mmcloformer.apis.predict import ImageReader
from mmcloformer.datasets.store import write_shapes
from mmcloformer.errors import UserError
from mmcloformer.export import ExportError, export_onnx, make_graph
from mmcloformer.export.comparison import HALF, Tolerance, compare
from mmcloformer.export.model import color_type, describe
from mmcloformer.export.onnx_file import DEFAULT_OPSET, OPSETS

DEMO_SCENES = Path('data/shapes/coco/val2017')
NUM_IMAGES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', help='ONNX file to write')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='input size (default: 800 1280 for mmdet, 512 512 for mmseg, 224 224 for mmpretrain)',
    )
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help='accept any input size, and any batch size unless the model is a detector',
    )
    parser.add_argument('--fp16', action='store_true', help='use float16 weights and activations')
    parser.add_argument(
        '--opset',
        type=int,
        choices=OPSETS,
        default=DEFAULT_OPSET,
        help='version of the operators; onnxruntime must be at least '
        + ', '.join(f'{lowest} for {opset}' for opset, (_, lowest) in OPSETS.items()),
    )
    parser.add_argument(
        '--verify',
        type=Path,
        metavar='DIR',
        help=f'compare on the first {NUM_IMAGES} images of this directory',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if args.shape and min(args.shape) < 1:
        raise UserError(
            f'--shape is {args.shape[0]} {args.shape[1]}; height and width must be at least 1'
        )
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    if Path(args.out).is_dir():
        raise UserError(f'{args.out} is a directory; give the name of the file to write')
    reader = ImageReader(cfg)
    with images_to_compare(args.verify, cfg, reader) as images:
        shape = tuple(args.shape or DEFAULT_SHAPES[reader.host])
        export(args, cfg, shape, images)


def export(
    args: argparse.Namespace, cfg: Config, shape: tuple[int, int], images: list[Path]
) -> None:
    model, meta = load_trained(cfg, args.checkpoint)
    graph = make_graph(model, half=args.fp16)
    metadata = describe(
        cfg, graph, tuple(meta.get('classes') or ()), None if args.dynamic else shape
    )
    metadata |= dict(config=Path(args.config).name, mmcloformer=mmcloformer.__version__)
    export_onnx(graph, args.out, shape, args.dynamic, metadata, args.opset)
    size = Path(args.out).stat().st_size / 1e6
    lowest = OPSETS[args.opset][1]
    print(f'{args.out}: {graph.task}, {size:.1f} MB, for onnxruntime {lowest} or newer')

    session = onnxruntime.InferenceSession(args.out, providers=['CPUExecutionProvider'])
    tolerance = HALF if args.fp16 else Tolerance()
    report = compare(session, model, graph, cfg, images, tolerance)
    print(f'largest differences from PyTorch on {len(images)} images:')
    for name, value in report.differences.items():
        print(f'  {name}: {value:.2g}')
    if report.instances == 0:
        print(
            '  none: there is no object that both found; set --verify to a directory of '
            'images with objects of the classes'
        )
    if report.disagreements:
        raise ExportError(
            'onnxruntime disagrees with PyTorch on ' + '; '.join(report.disagreements)
        )


@contextmanager
def images_to_compare(
    folder: Path | None, cfg: Config, reader: ImageReader
) -> Iterator[list[Path]]:
    """Yield the first images of `folder`, or of the demo data set."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or demo_images(cfg, Path(temporary))
        files = sorted(path for path in folder.glob('*') if path.is_file())
        images = [*islice((path for path in files if reader.reads(str(path))), NUM_IMAGES)]
        if not images:
            raise UserError(
                f'--verify {folder} contains no images that test_dataloader.dataset.pipeline loads'
            )
        yield images


def demo_images(cfg: Config, temporary: Path) -> Path:
    """Return a folder of demo scenes with the number of channels that the config expects.

    If the data set is not there, scenes are generated in `temporary`; so are copies in grey, or
    with their brightness as opacity.
    """
    scenes = DEMO_SCENES
    if not scenes.is_dir():
        write_shapes(temporary, ('coco',), num_train=1, num_val=NUM_IMAGES)
        scenes = temporary / 'coco/val2017'
    channels = image_channels(cfg)
    if channels == 3 or color_type(inference_steps(cfg)[0]) not in (None, 'unchanged'):
        return scenes
    if channels not in (1, 4):
        raise UserError(
            f'the backbone takes images of {channels} channels, which the demo data set has not; '
            f'give a directory of such images with --verify'
        )
    for path in sorted(scenes.iterdir())[:NUM_IMAGES]:
        copy = Image.open(path).convert('L')
        if channels == 4:
            copy = Image.merge('RGBA', [copy] * 4)
        copy.save(temporary / f'{path.stem}.png')
    return temporary


if __name__ == '__main__':
    exit_on_user_error(main)
