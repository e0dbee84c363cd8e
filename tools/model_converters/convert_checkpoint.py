#!/usr/bin/env python
"""Convert a checkpoint of the released CloFormer code (.pth or .safetensors) to mmpretrain's
classifier format, which `init_cfg=dict(type='Pretrained', checkpoint=DST)` loads anywhere."""

import argparse

from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.checkpoint import get_state_dict, read_checkpoint
from mmcloformer.checkpoint.convert import convert_checkpoint
from mmcloformer.checkpoint.saving import require_new, save_new
from mmcloformer.models.state_dict import STATE_DICT_KEYS, find_state_dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='file to convert')
    parser.add_argument('dst', help='file to write; must not exist')
    parser.add_argument(
        '--key',
        help='key of the state dict in the file, such as model_ema (default: the first of '
        f'{", ".join(STATE_DICT_KEYS)}, or the file itself)',
    )
    args = parser.parse_args()
    require_new(args.dst)
    loaded = read_checkpoint(args.src)
    checkpoint = convert_checkpoint(get_state_dict(loaded, args.src, args.key))
    save_new(args.dst, checkpoint)
    meta = checkpoint['meta']
    if key := find_state_dict(loaded, args.key)[0]:
        print(f'converted the weights under {key!r}')
    print(
        f'wrote {args.dst}: arch {meta["arch"]}, {meta["num_classes"]} classes, '
        f'{len(checkpoint["state_dict"])} tensors'
    )
    if isinstance(meta['arch'], dict):
        print('the shapes of the weights do not determine num_heads and group_splits: check them')


if __name__ == '__main__':
    exit_on_user_error(main)
