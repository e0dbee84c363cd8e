#!/usr/bin/env python
"""Convert a checkpoint of the released CloFormer code (.pth or .safetensors) to mmpretrain's
classifier format, which `init_cfg=dict(type='Pretrained', checkpoint=DST)` loads anywhere."""

import argparse
import io
import os
from pathlib import Path

import torch

from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.checkpoint import read_state_dict
from mmcloformer.checkpoint.convert import convert_checkpoint
from mmcloformer.checkpoint.saving import write_whole
from mmcloformer.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help="{'model': state_dict} or a bare state dict")
    parser.add_argument('dst', help='file to write; must not exist')
    args = parser.parse_args()
    dst = Path(args.dst)
    if os.path.lexists(dst):
        raise UserError(f'{dst} exists; remove it or choose another name')
    if dst.suffix == '.safetensors':
        raise UserError(f'{dst}: the file will hold more than tensors; choose a name in .pth')
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = convert_checkpoint(read_state_dict(args.src))
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(dst, content.getvalue())
    except OSError as error:
        raise UserError(f'{dst} cannot be written: {error.strerror}') from error
    meta = checkpoint['meta']
    print(
        f'wrote {dst}: arch {meta["arch"]}, {meta["num_classes"]} classes, '
        f'{len(checkpoint["state_dict"])} tensors'
    )
    if isinstance(meta['arch'], dict):
        print(
            'its num_heads and group_splits are guessed, as weights do not tell: set the true ones'
        )


if __name__ == '__main__':
    exit_on_user_error(main)
