#!/usr/bin/env python
"""Draw a sheet of the images that configs/cloformer_xxs_formula.py learns: a class a row."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from mmcloformer.errors import ConfigError
from mmcloformer.formula.waves import draw_instance, render
from mmcloformer.launch import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='image file to write')
    parser.add_argument('--classes', type=int, default=6, help='rows')
    parser.add_argument('--instances', type=int, default=8, help='columns')
    parser.add_argument('--size', type=int, default=112, help='side of an image in pixels')
    parser.add_argument('--seed', type=int, default=0, help='seed of the data set')
    args = parser.parse_args()
    for name, least in (('classes', 1), ('instances', 1), ('size', 1), ('seed', 0)):
        if (value := getattr(args, name)) < least:
            raise ConfigError(f'--{name} is {value}; give {least} or more')
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
    exit_on_user_error(main)
