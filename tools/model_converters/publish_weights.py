#!/usr/bin/env python
"""Put a trained classifier into the package, in half precision: it loads as mmcloformer://NAME."""

import argparse
import json
from pathlib import Path

import mmcloformer  # noqa: F401  (before any host: it puts the ops stand-in in place)
from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.checkpoint.shipped import INDEX, SCHEME, publish
from mmcloformer.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint file of tools/train.py')
    parser.add_argument('name', help='name of the weights')
    parser.add_argument(
        '--classes',
        type=Path,
        help='text file with one class name per line, in the order of the labels '
        '(default: the names in the checkpoint)',
    )
    args = parser.parse_args()
    path = publish(args.checkpoint, args.name, read_lines(args.classes))
    digest = json.loads((path.parent / INDEX).read_text())[args.name]['sha256']
    print(
        f'{path}: {path.stat().st_size / 1e6:.1f} MB, loads as {SCHEME}{args.name}\n'
        f'SHA-256 {digest}'
    )


def read_lines(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text('utf-8-sig').splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise UserError(f'--classes {path} cannot be read: {error}') from error


if __name__ == '__main__':
    exit_on_user_error(main)
