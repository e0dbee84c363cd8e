#!/usr/bin/env python
"""Count parameters and multiply-adds of a config's backbone, neck, head and whole model."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mmengine.logging import MMLogger

from mmcloformer.analysis.complexity import PUBLISHED_GMACS, Complexity, measure
from mmcloformer.apis.cli import add_cfg_options, exit_on_user_error
from mmcloformer.apis.config import read_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG', help="a file, or a host's own as mmdet::PATH"
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of the image (default: 800 1280 for mmdet, 512 512 mmseg, 224 224 mmpretrain)',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    add_cfg_options(parser)
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')  # It writes to where the figures go.

    results = {}
    for config in args.configs:
        stem = Path(config).stem
        name = config if stem in results else stem
        result = measure(read_config(config, args.cfg_options), args.shape and tuple(args.shape))
        changed = args.shape or args.cfg_options
        published = None if changed else PUBLISHED_GMACS.get(stem)
        results[name] = {**asdict(result), 'published_gmacs': published}
        if not args.json:
            print_table(name, result, published)
    if args.json:
        print(json.dumps(results, indent=1))
    else:
        print(
            'Multiply-adds of one image: convolutions, matrix products and both products of '
            'attention (queries with\nkeys, scores with values). Biases, norms, activations, '
            'pooling and sampling do not count.'
        )


def print_table(name: str, result: Complexity, published: float | None) -> None:
    print(f'{name} at {"x".join(map(str, result.shape))}')
    print(f'{"":10}{"params (M)":>12}{"GMACs":>12}')
    for part, cost in result.parts.items():
        print(f'{part:10}{cost.params / 1e6:12.3f}{cost.macs / 1e9:12.3f}')
    if published is not None:
        print(f'{"published":10}{"":12}{published:12.1f}')
    kinds = (f'{kind} {macs / 1e9:.3f}' for kind, macs in result.operators.items() if macs)
    print(f'of the whole: {", ".join(kinds)}')
    for extractor, regions in result.regions.items():
        print(f'{extractor}: {regions} regions')
    print()


if __name__ == '__main__':
    exit_on_user_error(main)
