#!/usr/bin/env python
"""Measure CloFormer beside a literal implementation of it and the hosts' backbones.

With no further options it runs everything: backbones and whole detectors, inference and training.
"""

import argparse
import sys
from pathlib import Path

import torch

# `benchmarks` is not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.frontier import EXPORTED, LARGE, PEERS, frontier_table, own_size, plot_frontier
from benchmarks.suite import BACKBONES, SIDES, Job, plot_growth, run_jobs, table
from mmcloformer.analysis.curves import require_image_name
from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.errors import UserError
from mmcloformer.models import ARCHS

ROOT = Path(__file__).parents[2]
SIZES = ((224, 224), (512, 512), (800, 1280))
CONFIGS = ROOT / 'configs'
DETECTORS = (
    str(CONFIGS / 'retinanet_cloformer_xs_coco.py'),
    'mmdet::pvt/retinanet_pvtv2-b1_fpn_1x_coco.py',
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
)
SEGMENTORS = (
    str(CONFIGS / 'semantic-fpn_cloformer_xs_ade20k.py'),
    'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
)
CLASSIFIERS = (str(CONFIGS / 'cloformer_xs_imagenet.py'),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--arch', choices=sorted(ARCHS), default='xs', help='size of CloFormer')
    parser.add_argument(
        '--rounds', type=positive, default=5, help='timed runs of each model, interleaved'
    )
    parser.add_argument(
        '--models', nargs='+', help=f'only these: config files, or of {", ".join(BACKBONES)}'
    )
    parser.add_argument('--sizes', nargs='+', type=size, help='only these: SIDE or HEIGHTxWIDTH')
    parser.add_argument('--batches', nargs='+', type=positive, help='only these')
    parser.add_argument('--growth', help='image file: inference over the size, and its plot')
    parser.add_argument(
        '--frontier', help='image file: light backbones, accuracy over time; on a CPU'
    )
    parser.add_argument('--out', help='JSON file to write (default: benchmarks/DEVICE.json)')
    args = parser.parse_args()

    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch finds no GPU here')
    if args.frontier and (args.device == 'cuda' or args.models or args.sizes or args.batches):
        raise UserError(
            '--frontier measures its own models, sizes and batch on a CPU: '
            'leave out --device cuda, --models, --sizes and --batches'
        )
    options = (name for name in vars(args) if name not in ('device', 'out'))
    if not args.out and any(getattr(args, name) != parser.get_default(name) for name in options):
        raise UserError('--out is needed: the default file is for the comparison without options')
    for plot in filter(None, (args.growth, args.frontier)):
        require_image_name(plot)
    out = args.out or f'benchmarks/{args.device}.json'
    jobs = choose_jobs(args)
    results = run_jobs(jobs, args.arch, args.device, args.rounds, out)
    print(frontier_table(results) if args.frontier else table(results))
    if args.frontier:
        plot_frontier(results, args.frontier)
    if args.growth:
        plot_growth(results, args.growth)


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    return positive(height), positive(width or height)


def choose_jobs(args: argparse.Namespace) -> list[Job]:
    cuda = args.device == 'cuda'
    batches = tuple(args.batches or ((1, 8, 64) if cuda else (1,)))
    if args.frontier:
        groups: dict[str, list[str]] = {}
        for name in PEERS:
            groups.setdefault(own_size(name), []).append(name)
        jobs = [
            Job((*names, *(name + EXPORTED for name in names)), (size(own),), (1,), (False,))
            for own, names in groups.items()
        ]
        return [*jobs, Job(tuple(PEERS), (size(LARGE),), (1,), (False,))]
    if args.growth:
        models = tuple(args.models or ('literal', 'deploy form'))
        sizes = tuple(args.sizes or ((side, side) for side in SIDES))
        return [Job(models, sizes, batches[:1], training=(False,))]
    sizes = tuple(args.sizes or SIZES)
    if args.models:
        return [Job(tuple(args.models), sizes, batches)]
    jobs = [
        Job(BACKBONES, sizes, batches),
        Job(DETECTORS, ((800, 1280),), (2, 16) if cuda else (1,)),
        Job(SEGMENTORS, ((512, 512),), (16,) if cuda else (1,)),
    ]
    if cuda:
        jobs.append(Job(CLASSIFIERS, ((224, 224),), (256,), training=(True,)))
    return jobs


if __name__ == '__main__':
    exit_on_user_error(main)
