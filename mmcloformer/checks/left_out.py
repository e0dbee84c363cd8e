"""Finds samples that a host leaves out without a word, and the rule by which it does."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from ..config import ConfigView

# fmt: off
IMAGE_SUFFIXES = {
    '.avif', '.bmp', '.gif', '.heic', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.pgm', '.png',
    '.ppm', '.tif', '.tiff', '.webp',
}
# fmt: on


def unused_folder(cfg: Config, split: str, leaf: Mapping[str, Any]) -> str | None:
    """Return why a host takes none of the images in a dataset's folder; None if it takes any.

    Args:
        cfg: The whole config.
        split: `train`, `val` or `test`.
        leaf: The dataset's config, not a wrapper's.
    """
    rule = _Rule.of(cfg, leaf)
    if rule is None or any(map(rule.takes, rule.files())):  # Stops at the first one.
        return None
    return rule.describe(f'{split}_dataloader.dataset')


def left_out_files(cfg: Config, split: str, leaf: Mapping[str, Any]) -> str | None:
    """Return how many image files a host leaves out of a dataset, and why; None if none.

    Args:
        cfg: The whole config, of mmseg or mmpretrain; others list their images in a file.
        split: `train`, `val` or `test`.
        leaf: The dataset's config, not a wrapper's.
    """
    rule = _Rule.of(cfg, leaf)
    return rule.describe(f'{split}_dataloader.dataset') if rule else None


def build_dataset(scope: str, leaf: Mapping[str, Any], **settings: Any) -> Any:
    """Build a dataset of a host, whatever the default scope is.

    Args:
        scope: The host.
        leaf: The dataset's config, not a wrapper's.
        **settings: Fields to override.
    """
    fields = dict(leaf, **settings)
    fields.pop('_scope_', None)  # mmengine adds it to configs of a host's own.
    view = ConfigView(Config(dict(default_scope=scope)))
    return view.resolve(fields.pop('type'), 'DATASETS')(**fields)


def filtered_images(
    images: Sequence[Mapping[str, Any]],
    with_objects: Sequence[Mapping[str, Any]],
    filter_cfg: Mapping[str, Any],
) -> tuple[int, str]:
    """Return how many images of a COCO file mmdet keeps for training, and why not the others.

    Args:
        images: All images of the file, each with width and height.
        with_objects: Those with an object of the configured classes.
        filter_cfg: The dataset's `filter_cfg`.

    Returns:
        The number, and the reasons; an empty string if all are kept.
    """
    kept = with_objects if filter_cfg.get('filter_empty_gt') else images
    empty = len(images) - len(kept)
    side = filter_cfg.get('min_size', 0)
    shorter = [min(image['width'], image['height']) for image in kept]
    small = sum(each < side for each in shorter)
    reasons = []
    if empty:
        reasons.append(
            f'{empty} of {len(images)} images have no object of the classes '
            '(filter_cfg.filter_empty_gt=True; set it to False to train on them as background)'
        )
    if small:
        reasons.append(
            f'{small} of {len(images)} images have a shorter side below filter_cfg.min_size={side} '
            f'(set filter_cfg.min_size={min(shorter)} to keep them)'
        )
    return len(kept) - small, '; '.join(reasons)


def filtered_samples(scope: str, leaf: Mapping[str, Any], kept: int) -> str | None:
    """Return how many samples `filter_cfg` leaves out of a dataset that reads other files.

    Args:
        scope: The host.
        leaf: The dataset's config.
        kept: Number of samples of the dataset.
    """
    if not leaf.get('filter_cfg') or leaf.get('indices') is not None or leaf.get('test_mode'):
        return None
    out = len(build_dataset(scope, leaf, filter_cfg=None, pipeline=[])) - kept
    if out <= 0:
        return None
    return (
        f'{out} of {out + kept} samples are left out by filter_cfg={dict(leaf["filter_cfg"])}; '
        'set filter_cfg=None to keep them'
    )


class _Rule:
    """Which files of a folder a dataset takes."""

    def __init__(self, folder: str, advice: str) -> None:
        self.folder = folder
        self.advice = advice

    @staticmethod
    def of(cfg: Config, leaf: Mapping[str, Any]) -> '_Rule | None':
        """Return the rule of a dataset; None if it takes files from a list, or in a way of its
        own."""
        scope = cfg.get('default_scope')
        if scope not in ('mmseg', 'mmpretrain') or leaf.get('backend_args'):
            return None
        try:
            dataset = build_dataset(scope, leaf, lazy_init=True, pipeline=[])
        except Exception:  # Whatever is wrong with the config is another check's.
            return None
        rule = (_by_suffix if scope == 'mmseg' else _by_extensions)(dataset)
        return rule if rule and Path(rule.folder).is_dir() else None

    def files(self) -> Iterator[str]:
        """Yield the files that the host looks at, relative to the folder."""
        yield from fileio.list_dir_or_file(self.folder, list_dir=False, recursive=True)

    def takes(self, file: str) -> bool:
        """Return whether the dataset has a sample for a file."""
        raise NotImplementedError

    def is_image(self, file: str) -> bool:
        """Return whether a file that is not taken seems to be an image."""
        return Path(file).suffix.lower() in IMAGE_SUFFIXES

    def describe(self, where: str) -> str | None:
        """Return how many images are left out, and what to do; None if none.

        Args:
            where: The field of the dataset.
        """
        out: Counter[str] = Counter()
        kept = 0
        for file in self.files():
            if self.takes(file):
                kept += 1
            elif self.is_image(file):
                out[Path(file).suffix] += 1
        if not out:
            return None
        listed = ', '.join(f'{count} {suffix}' for suffix, count in out.most_common())
        total = kept + out.total()
        return (
            f'{where}: {out.total()} of {total} images in {self.folder} are left out ({listed}): '
            f'{self.advice.replace("WHERE", where)}'
        )


class _SuffixRule(_Rule):
    def __init__(self, folder: str, suffix: str, labels: str | None, label_suffix: str) -> None:
        super().__init__(
            folder,
            f'the host takes only file names that end in {suffix!r}, with this case '
            '(WHERE.img_suffix). Set img_suffix to the ending of the images; if there are '
            'several, rename or convert them to one',
        )
        self.suffix = suffix
        self.labels = os.path.abspath(labels) if labels else None
        self.label_suffix = label_suffix

    def takes(self, file: str) -> bool:
        return file.endswith(self.suffix)

    def is_image(self, file: str) -> bool:
        folder = os.path.abspath(self.folder)
        beside = self.labels == folder and file.endswith(self.label_suffix)
        path = os.path.join(folder, file)
        below = self.labels and self.labels != folder and path.startswith(self.labels + os.sep)
        return super().is_image(file) and not beside and not below


class _ExtensionRule(_Rule):
    def __init__(self, folder: str, dataset: Any) -> None:
        extensions = sorted(dataset.extensions)
        super().__init__(
            folder,
            f'the host takes {" ".join(extensions)} (WHERE.extensions)'
            + (', in folders of classes only' if dataset.with_label else '')
            + '. Add an ending to extensions if OpenCV can read it, or convert the files',
        )
        self.dataset = dataset

    def takes(self, file: str) -> bool:
        placed = not self.dataset.with_label or os.path.dirname(file) != ''
        return placed and bool(self.dataset.is_valid_file(file))


def _by_suffix(dataset: BaseDataset) -> _Rule | None:
    from mmseg.datasets import BaseSegDataset

    own = getattr(type(dataset), 'load_data_list', None) is not BaseSegDataset.load_data_list
    listed = dataset.ann_file and not os.path.isdir(dataset.ann_file)
    folder = dataset.data_prefix.get('img_path')
    if own or listed or not folder or '://' in folder:
        return None
    labels = dataset.data_prefix.get('seg_map_path')
    return _SuffixRule(folder, dataset.img_suffix, labels, dataset.seg_map_suffix)


def _by_extensions(dataset: BaseDataset) -> _Rule | None:
    from mmpretrain.datasets import CustomDataset

    kind: Any = type(dataset)
    own = not isinstance(dataset, CustomDataset) or any(
        getattr(kind, name) is not getattr(CustomDataset, name)
        for name in ('load_data_list', '_find_samples', 'is_valid_file')
    )
    if own or dataset.ann_file or '://' in dataset.img_prefix:
        return None
    return _ExtensionRule(dataset.img_prefix, dataset)
