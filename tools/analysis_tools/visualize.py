#!/usr/bin/env python
"""Draw the weights, attention and frequency spectra of each stage's branches for an image."""

import argparse
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from numpy.typing import NDArray

from mmcloformer import CloFormer
from mmcloformer.analysis.perception import draw, view
from mmcloformer.apis.cli import add_cfg_options, exit_on_user_error
from mmcloformer.apis.config import image_color, preprocessor_of, read_config
from mmcloformer.apis.predict import image_problem
from mmcloformer.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of that config, or of its backbone alone')
    parser.add_argument('image', help='image file; the network sees it at its own size')
    parser.add_argument('--out', required=True, help='picture to write')
    add_cfg_options(parser)
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)
    backbone = build_backbone(cfg.model.backbone, args.checkpoint)
    image = read_image(args.image, image_color(cfg) or 'color')
    figure = draw(view(backbone, normalise(image, cfg)), to_picture(image))
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=150)
    print(args.out)


def build_backbone(cfg: ConfigDict, checkpoint: str) -> CloFormer:
    backbone = MODELS.build({**cfg, 'init_cfg': dict(type='Pretrained', checkpoint=checkpoint)})
    if not isinstance(backbone, CloFormer):
        raise UserError(f'the backbone of the config is {cfg.type}, not CloFormer')
    backbone.init_weights()
    return backbone.eval()


def read_image(path: str, color: str = 'color') -> NDArray[np.uint8]:
    """Return an image `(H, W, C)`, RGB if it has three channels or more."""
    problem = image_problem(Path(path))
    if problem:
        raise UserError(f'{path} {problem}')
    image = mmcv.imread(path, flag=color)
    return swap(image.reshape(*image.shape[:2], -1))


def swap(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Exchange red and blue, if there are both."""
    channels = image.shape[2]
    return image if channels < 3 else image[..., [2, 1, 0, *range(3, channels)]]


def normalise(image: NDArray[np.uint8], cfg: Config) -> torch.Tensor:
    preprocessor = preprocessor_of(cfg)
    converts = preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb')
    if not converts or image.shape[2] > 3:  # The hosts convert images of three channels only.
        image = swap(image)
    mean, std = preprocessor.get('mean') or [0.0], preprocessor.get('std') or [1.0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return ((torch.from_numpy(image).permute(2, 0, 1) - mean) / std)[None]


def to_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture `(H, W, 3)` of an image with any number of channels."""
    if image.shape[2] >= 3:
        return image[..., :3]
    return image.mean(axis=2, keepdims=True).astype(image.dtype).repeat(3, axis=2)


if __name__ == '__main__':
    exit_on_user_error(main)
