#!/usr/bin/env python
"""Make initial weights for a wider CloFormer from a trained classifier of a narrower one, such as
XS from XXS. `load_from=DST` in a classification config starts from them."""

import argparse

from mmengine.runner import CheckpointLoader

from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.checkpoint import get_state_dict
from mmcloformer.checkpoint.saving import require_new, save_new
from mmcloformer.checkpoint.widen import widen_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of a classifier: a file or mmcloformer://NAME')
    parser.add_argument('arch', help='name of the wider variant, such as xs')
    parser.add_argument('dst', help='file to write; must not exist')
    args = parser.parse_args()
    require_new(args.dst)
    loaded = CheckpointLoader.load_checkpoint(args.src, 'cpu')
    checkpoint = widen_checkpoint(get_state_dict(loaded, args.src), args.arch)
    save_new(args.dst, checkpoint)
    print(f'wrote {args.dst}: arch {args.arch}, {checkpoint["meta"]["num_classes"]} classes')


if __name__ == '__main__':
    exit_on_user_error(main)
