#!/usr/bin/env python
"""Put a trained classifier's backbone into the package, in half precision, as mmcloformer://NAME."""

import argparse

import mmcloformer  # noqa: F401  (before any host: it puts the ops stand-in in place)
from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.checkpoint.shipped import SCHEME, publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint file of tools/train.py')
    parser.add_argument('name', help='name of the weights')
    args = parser.parse_args()
    path = publish(args.checkpoint, args.name)
    print(f'{path}: {path.stat().st_size / 1e6:.1f} MB, loads as {SCHEME}{args.name}')


if __name__ == '__main__':
    exit_on_user_error(main)
