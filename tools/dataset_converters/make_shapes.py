#!/usr/bin/env python
"""Write the generated demo data set "shapes" in the layouts of COCO, ADE20K and ImageNet."""

import argparse
from pathlib import Path

from PIL import Image

from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.datasets.layouts import LAYOUTS
from mmcloformer.datasets.shapes import make_scene
from mmcloformer.datasets.sheet import contact_sheet
from mmcloformer.datasets.store import write_shapes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('root', nargs='?', default='data/shapes', help='folder to write to')
    parser.add_argument('--num-train', type=int, default=800, help='training scenes')
    parser.add_argument('--num-val', type=int, default=100, help='validation scenes')
    parser.add_argument('--size', type=int, default=128, help='side of a scene in pixels')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--layouts', nargs='+', choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument('--sheet', type=Path, help='also draw 24 training scenes to this image')
    args = parser.parse_args()
    if args.sheet and args.sheet.suffix.lower() not in Image.registered_extensions():
        parser.error(f'--sheet {args.sheet} must have the ending of an image, such as .png')

    report = write_shapes(
        args.root, args.layouts, args.num_train, args.num_val, args.size, args.seed
    )
    for name in args.layouts:
        state = 'written' if name in report.written else 'up to date'
        print(f'{Path(args.root, name)}: {state}')
    for split, number in (('train', args.num_train), ('val', args.num_val)):
        found = ', '.join(f'{count} {name}' for name, count in report.counts[split].items())
        print(f'{split}: {number} scenes with {found}')
    if args.sheet:
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        scenes = [
            make_scene(index, 'train', args.size, args.seed)
            for index in range(min(24, args.num_train))
        ]
        Image.fromarray(contact_sheet(scenes)).save(args.sheet)
        print(f'{args.sheet}: {len(scenes)} training scenes with their ground truth')


if __name__ == '__main__':
    exit_on_user_error(main)
