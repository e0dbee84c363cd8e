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
from mmcloformer.apis.config import preprocessor_of, read_config
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
    image = read_image(args.image)
    figure = draw(view(backbone, normalise(image, cfg)), image)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=150)
    print(args.out)


def build_backbone(cfg: ConfigDict, checkpoint: str) -> CloFormer:
    backbone = MODELS.build({**cfg, 'init_cfg': dict(type='Pretrained', checkpoint=checkpoint)})
    if not isinstance(backbone, CloFormer):
        raise UserError(f'the backbone of the config is {cfg.type}, not CloFormer')
    backbone.init_weights()
    return backbone.eval()


def read_image(path: str) -> NDArray[np.uint8]:
    problem = image_problem(Path(path))
    if problem:
        raise UserError(f'{path} {problem}')
    return mmcv.imread(path, channel_order='rgb')


def normalise(image: NDArray[np.uint8], cfg: Config) -> torch.Tensor:
    preprocessor = preprocessor_of(cfg)
    mean, std = (torch.tensor(preprocessor[key])[:, None, None] for key in ('mean', 'std'))
    return ((torch.from_numpy(image).permute(2, 0, 1) - mean) / std)[None]


if __name__ == '__main__':
    exit_on_user_error(main)
