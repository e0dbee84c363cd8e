#!/usr/bin/env python
"""Convert a checkpoint of the released CloFormer code (.pth or .safetensors) to mmpretrain's
classifier format, which `init_cfg=dict(type='Pretrained', checkpoint=DST)` loads anywhere."""

import argparse
from pathlib import Path

import torch

from mmcloformer.checkpoint import read_state_dict
from mmcloformer.checkpoint.convert import convert_checkpoint
from mmcloformer.errors import UserError
from mmcloformer.launch import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help="{'model': state_dict} or a bare state dict")
    parser.add_argument('dst', help='file to write; must not exist')
    args = parser.parse_args()
    if Path(args.dst).exists():
        raise UserError(f'{args.dst} exists; remove it or choose another name')
    if args.dst.endswith('.safetensors'):
        raise UserError(f'{args.dst}: the file will hold more than tensors; choose a name in .pth')
    checkpoint = convert_checkpoint(read_state_dict(args.src))
    Path(args.dst).parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, args.dst)
    meta = checkpoint['meta']
    print(
        f'wrote {args.dst}: arch {meta["arch"]}, {meta["num_classes"]} classes, '
        f'{len(checkpoint["state_dict"])} tensors'
    )
    if isinstance(meta['arch'], dict):
        print(
            'its num_heads and group_splits are guessed, as weights do not tell: set the true ones'
        )


if __name__ == '__main__':
    exit_on_user_error(main)
