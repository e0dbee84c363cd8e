"""Small images kept in memory and cropped in batches on the device.

mmpretrain's pipelines load and crop one image at a time. With images of 64x64 that takes longer
than the training step of a GPU. Here the whole set is decoded once, and the data preprocessor of
the model crops, mirrors and mixes a batch with a few operations on its device. A config that uses
this module names it in `custom_imports`, because it needs mmpretrain.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, FUNCTIONS, MODELS
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import DATASETS as CLASSIFICATION_SETS
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError

Batch = dict[str, Any]


@DATASETS.register_module()
class InMemoryImages(Dataset[Batch]):
    """All images of a classification set of mmpretrain, decoded once, as one array of bytes.

    Takes a whole batch at a time, so its data loader needs `collate_fn=dict(type='keep_batch')`;
    for `BatchCropPreprocessor`. Workers would copy the array, so use `num_workers=0`.

    Args:
        dataset: Config of the set; its pipeline is not used.

    Raises:
        DataError: If an image cannot be decoded or the images differ in size.
    """

    def __init__(self, dataset: dict[str, Any]) -> None:
        files: BaseDataset = CLASSIFICATION_SETS.build({**dataset, 'pipeline': []})
        self.metainfo = files.metainfo
        items = [files.get_data_info(index) for index in range(len(files))]
        self.labels = torch.tensor([item['gt_label'] for item in items])
        with ThreadPoolExecutor() as threads:
            images = [*threads.map(_read, [item['img_path'] for item in items])]
        for image, item in zip(images, items):
            if image.shape != images[0].shape:
                raise DataError(
                    f'{item["img_path"]} is {image.shape[1]}x{image.shape[2]} pixels, '
                    f'{items[0]["img_path"]} {images[0].shape[1]}x{images[0].shape[2]}: '
                    f'InMemoryImages needs images of one size; use the data set without it'
                )
        self.images = torch.stack(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return `inputs` `(N, 3, H, W)`, bytes in BGR order, and `labels` `(N,)`."""
        chosen = torch.as_tensor(indices)
        return dict(inputs=self.images[chosen], labels=self.labels[chosen])


def _read(path: str) -> Tensor:
    image = cv2.imread(path)
    if image is None:
        raise DataError(f'{path} is missing or no image; replace it or take it out of the set')
    return torch.from_numpy(image).permute(2, 0, 1)


@FUNCTIONS.register_module()
def keep_batch(batch: Batch) -> Batch:
    """Return what the data set made, which is a batch already."""
    return batch


@MODELS.register_module()
class BatchCropPreprocessor(ClsDataPreprocessor):
    """mmpretrain's data preprocessor that also crops and mirrors the batches of `InMemoryImages`.

    Each image gets a random crop, resized bicubically, and is mirrored with probability 0.5; then
    follow normalisation and the model's batch augmentations. Other batches (validation, test)
    are treated as by the base class.

    Args:
        size: Height and width of the crops after resizing, in pixels.
        crop_ratio_range: Least and greatest area of a crop, as a share of the image.
        kwargs: As for the base class; `num_classes` is required.
    """

    def __init__(
        self, size: int, crop_ratio_range: tuple[float, float] = (0.35, 1.0), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.crop_ratio_range = crop_ratio_range

    def forward(self, data: Batch, training: bool = False) -> Batch:
        """Prepare a batch, on the device of the model."""
        if 'labels' not in data:
            return super().forward(data, training)
        images = self.cast_data(data['inputs']).float()
        inputs = random_resized_crop(images, self.size, self.crop_ratio_range)
        inputs = super().forward(dict(inputs=inputs))['inputs']
        scores = F.one_hot(self.cast_data(data['labels']), self.num_classes).float()
        if self.batch_augments is not None:
            inputs, scores = self.batch_augments(inputs, scores)
        samples = [DataSample().set_gt_score(score) for score in scores]
        # With this layout a GPU trains on images of 128 px twice as fast.
        return dict(
            inputs=inputs.contiguous(memory_format=torch.channels_last), data_samples=samples
        )


def random_resized_crop(
    images: Tensor,
    size: int,
    areas: tuple[float, float],
    ratios: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Cut a random part out of each image, resize it and mirror it with probability 0.5.

    The random numbers come from torch's generator of the CPU, so that a seed gives the same
    crops on every device.

    Args:
        images: Batch `(N, C, H, W)`.
        size: Height and width of the result, in pixels.
        areas: Range of the share of the image that is kept.
        ratios: Range of width over height, drawn on a logarithmic scale.

    Returns:
        Batch `(N, C, size, size)`.
    """
    n = len(images)
    area = torch.empty(n).uniform_(*areas)
    ratio = torch.empty(n).uniform_(*map(math.log, ratios)).exp()
    # Lengths and shifts in affine_grid's units: an image reaches from -1 to 1.
    width = (area * ratio).sqrt().clamp(max=1)
    height = (area / ratio).sqrt().clamp(max=1)
    x = (1 - width) * torch.empty(n).uniform_(-1, 1)
    y = (1 - height) * torch.empty(n).uniform_(-1, 1)
    mirror = 1.0 - 2.0 * torch.randint(2, (n,))
    zero = torch.zeros(n)
    rows = [torch.stack([width * mirror, zero, x], 1), torch.stack([zero, height, y], 1)]
    theta = torch.stack(rows, 1).to(images.device)
    grid = F.affine_grid(theta, [n, images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, 'bicubic', 'reflection', align_corners=False)
