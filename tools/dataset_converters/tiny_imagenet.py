#!/usr/bin/env python
"""Prepare Tiny ImageNet: move the validation images into one folder per class, write the names of
the classes to classes.txt and check that no image is missing."""

import argparse
from collections.abc import Iterable
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
    if len(names) != 200:
        raise DataError(
            f'{root}/wnids.txt lists {len(names)} classes instead of 200: extract the archive again'
        )
    moved = sort_validation(root)
    check_counts(root, names)
    write_names(root, names)
    print(
        f'{root} is complete: 200 classes with 500 training and 50 validation images each; '
        f'{moved} validation images were moved into their class folders by this run'
    )


def read_names(root: Path) -> dict[str, str]:
    """Return the first name in words.txt for each WordNet id, sorted by id as the labels are.

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


def sort_validation(root: Path) -> int:
    """Move `val/images/NAME` to `val/CLASS/NAME` for each image in val_annotations.txt.

    The images are moved because mmpretrain's `CustomDataset` takes every folder in `val` for a
    class, `images` too. A call that was interrupted can be repeated; nothing is overwritten.

    Returns:
        Number of images moved by this call.

    Raises:
        DataError: If images are missing, have no annotation, or are in both places; nothing is
            moved in that case.
    """
    source = root / 'val' / 'images'
    lines = (root / 'val' / ANNOTATIONS).read_text().splitlines()
    rows = [line.split('\t') for line in lines if line]
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise DataError(f'{ANNOTATIONS} is damaged in line {number}: extract the archive again')
    targets = {row[0]: root / 'val' / row[1] / row[0] for row in rows}
    unsorted = {path.name for path in source.iterdir()} if source.is_dir() else set()
    present = {name for name, path in targets.items() if path.exists()}
    for names, problem, remedy in (
        (unsorted - targets.keys(), f'files in {source} that {ANNOTATIONS} does not list',
         'move them away and run this again'),
        (unsorted & present, f'validation images are both in {source} and in their class folders',
         'delete one of each and run this again'),
        (targets.keys() - unsorted - present, 'validation images are missing',
         'extract the archive again'),
    ):  # fmt: skip
        if names:
            raise DataError(f'{len(names)} {problem} ({join_first(sorted(names))}): {remedy}')
    for name in unsorted:
        targets[name].parent.mkdir(exist_ok=True)
        (source / name).rename(targets[name])
    if source.is_dir():
        source.rmdir()
    return len(unsorted)


def check_counts(
    root: Path, classes: Iterable[str], num_train: int = 500, num_val: int = 50
) -> None:
    """Check the number of images per class.

    Args:
        root: Folder of the data set with sorted validation images.
        classes: WordNet ids.
        num_train: Expected number of training images per class.
        num_val: Expected number of validation images per class.

    Raises:
        DataError: If a number differs, or a folder is no class; names the first few.
    """
    wrong = []
    for split, images, number in (
        ('train', 'images/*.JPEG', num_train),
        ('val', '*.JPEG', num_val),
    ):
        folders = {path.name: path for path in (root / split).iterdir() if path.is_dir()}
        for name in sorted({*classes, *folders}):
            found = len([*folders[name].glob(images)]) if name in folders else 0
            if name not in classes:
                wrong.append(f'{root}/{split}/{name} is not a class of wnids.txt')
            elif found != number:
                wrong.append(f'{root}/{split}/{name} has {found} instead of {number}')
    if wrong:
        raise DataError(
            f'the number of images is wrong: {join_first(wrong)}; extract the archive again'
        )


def write_names(root: Path, names: dict[str, str]) -> None:
    """Write the names to `classes.txt`, one per line, in the order of the labels."""
    (root / 'classes.txt').write_text('\n'.join(names.values()) + '\n')


if __name__ == '__main__':
    exit_on_user_error(main)
