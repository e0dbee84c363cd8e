#!/usr/bin/env python
"""Draw a sheet of the images that configs/cloformer_xxs_formula.py learns: a class a row."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from mmcloformer.formula.waves import draw_instance, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='image file to write')
    parser.add_argument('--classes', type=int, default=6, help='rows')
    parser.add_argument('--instances', type=int, default=8, help='columns')
    parser.add_argument('--size', type=int, default=112, help='side of an image in pixels')
    parser.add_argument('--seed', type=int, default=0, help='seed of the data set')
    args = parser.parse_args()
    drawings = [
        draw_instance(args.seed, label, instance)
        for label in range(args.classes)
        for instance in range(args.instances)
    ]
    images = render(torch.from_numpy(np.stack(drawings)), args.size)
    sheet = make_grid(images, nrow=args.instances, padding=4, pad_value=255)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.byte().permute(1, 2, 0).numpy()).save(args.out)


if __name__ == '__main__':
    main()
