#!/usr/bin/env python
"""Prepare Tiny ImageNet: move the validation images into one folder per class, write the names of
the classes to classes.txt and check that no image is missing."""

import argparse
from collections import Counter
from pathlib import Path

from mmcloformer.apis.cli import exit_on_user_error
from mmcloformer.errors import DataError, join_first

ANNOTATIONS = 'val_annotations.txt'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        'root', nargs='?', type=Path, default='data/tiny-imagenet-200', help='extracted archive'
    )
    root = parser.parse_args().root
    names = read_names(root)
    moved = sort_validation(root, list(names))
    check_counts(root, list(names))
    write_names(root, names)
    print(
        f'{root} is complete: 200 classes with 500 training and 50 validation images each; '
        f'{moved} validation images were moved into their class folders by this run'
    )


def read_names(root: Path) -> dict[str, str]:
    """Read the classes of the data set: the first name in words.txt for each WordNet id.

    Args:
        root: Folder of the extracted archive.

    Returns:
        Names by WordNet id, sorted by id, which is the order of the labels.

    Raises:
        DataError: If the folder is not Tiny ImageNet.
    """
    needed = ('wnids.txt', 'words.txt', 'train', f'val/{ANNOTATIONS}')
    if missing := [name for name in needed if not (root / name).exists()]:
        raise DataError(
            f'{root} is not Tiny ImageNet, it has no {", ".join(missing)}: give the folder '
            'tiny-imagenet-200 that tiny-imagenet-200.zip contains'
        )
    ids = sorted((root / 'wnids.txt').read_text().split())
    lines = (root / 'words.txt').read_text().splitlines()
    words = dict(line.split('\t', 1) for line in lines if '\t' in line)
    if unnamed := [id for id in ids if id not in words]:
        raise DataError(f'{root}/words.txt has no name for {join_first(unnamed)}')
    return {id: words[id].split(',')[0].strip() for id in ids}


def sort_validation(root: Path, classes: list[str]) -> int:
    """Move `val/images/NAME` to `val/CLASS/NAME` for each image in val_annotations.txt.

    The images are moved because mmpretrain's `CustomDataset` takes every folder in `val` for a
    class, `images` too. A call that was interrupted can be repeated; nothing is overwritten.

    Args:
        root: Folder of the extracted archive.
        classes: WordNet ids.

    Returns:
        Number of images moved by this call.

    Raises:
        DataError: If images are missing, have no annotation, or are in both places; nothing is
            moved in that case.
    """
    val = root / 'val'
    source = val / 'images'
    rows = [line.split('\t') for line in (val / ANNOTATIONS).read_text().splitlines() if line]
    targets = {row[0]: val / row[1] / row[0] for row in rows if len(row) > 1}
    if unknown := sorted({path.parent.name for path in targets.values()} - {*classes}):
        raise DataError(
            f'{val / ANNOTATIONS} names classes outside wnids.txt: {join_first(unknown)}'
        )
    unsorted = {path.name for path in source.iterdir()} if source.is_dir() else set()
    if extra := sorted(unsorted - targets.keys()):
        raise DataError(
            f'{source} has {len(extra)} files that {ANNOTATIONS} does not list '
            f'({join_first(extra)}): move them away and run this again'
        )
    present = {name for name, path in targets.items() if path.exists()}
    if double := sorted(unsorted & present):
        raise DataError(
            f'{len(double)} validation images are both in {source} and in their class folders '
            f'({join_first(double)}): delete one of each and run this again'
        )
    if missing := sorted(targets.keys() - unsorted - present):
        raise DataError(
            f'{len(missing)} validation images are missing ({join_first(missing)}): extract the '
            'archive again'
        )
    for name in sorted(unsorted):
        targets[name].parent.mkdir(exist_ok=True)
        (source / name).rename(targets[name])
    if source.is_dir():
        source.rmdir()
    return len(unsorted)


def check_counts(
    root: Path,
    classes: list[str],
    num_classes: int = 200,
    num_train: int = 500,
    num_val: int = 50,
) -> None:
    """Check the numbers of classes and of images per class.

    Args:
        root: Folder of the data set with sorted validation images.
        classes: WordNet ids.
        num_classes: Expected number of classes.
        num_train: Expected number of training images per class.
        num_val: Expected number of validation images per class.

    Raises:
        DataError: If a number differs; names the first few.
    """
    if len(classes) != num_classes:
        raise DataError(
            f'{root}/wnids.txt lists {len(classes)} classes instead of {num_classes}: extract the '
            'archive again'
        )
    wrong = []
    for split, below, number in (('train', 'images/', num_train), ('val', '', num_val)):
        found = Counter(
            path.relative_to(root / split).parts[0]
            for path in (root / split).glob(f'*/{below}*.JPEG')
        )
        folders = {path.name for path in (root / split).iterdir() if path.is_dir()}
        wrong += [
            f'{root}/{split}/{name} has {found[name]} instead of {number}'
            for name in classes
            if found[name] != number
        ]
        wrong += [
            f'{root}/{split}/{name} is not a class of wnids.txt'
            for name in sorted(folders - {*classes})
        ]
    if wrong:
        raise DataError(
            f'the number of images is wrong: {join_first(wrong)}; extract the archive again'
        )


def write_names(root: Path, names: dict[str, str]) -> None:
    """Write the names to `classes.txt`, one per line, in the order of the labels."""
    (root / 'classes.txt').write_text('\n'.join(names.values()) + '\n')


if __name__ == '__main__':
    exit_on_user_error(main)
