"""Tiny ImageNet's way to a GPU: images in memory, cropped in batches."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.models import ClsDataPreprocessor

from mmcloformer.datasets.in_memory import (
    BatchCropPreprocessor,
    InMemoryImages,
    keep_batch,
    random_resized_crop,
)
from mmcloformer.errors import DataError
from tests.conftest import ROOT

NORMALISATION = dict(mean=[120, 110, 100], std=[60, 50, 40], to_rgb=True, num_classes=3)


@pytest.fixture
def root(tmp_path):
    """Twelve random images of 16x12 in six classes, train and val alike."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for number in range(12):
            folder = tmp_path / split / f'n0{number % 6}'
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'{number}.png'), rng.integers(0, 256, (12, 16, 3), np.uint8))
    return tmp_path


def make_set(root):
    return InMemoryImages(
        dict(type='mmpretrain.CustomDataset', data_root=str(root), data_prefix='train')
    )


def test_a_batch_is_the_files_in_order(root):
    images = make_set(root)
    assert len(images) == 12
    assert images.metainfo['classes'] == tuple(f'n0{i}' for i in range(6))
    batch = keep_batch(images.__getitems__([5, 0, 8]))
    assert batch['labels'].tolist() == [2, 0, 4]
    files = ['n02/8.png', 'n00/0.png', 'n04/10.png']
    for image, file in zip(batch['inputs'], files):
        assert np.array_equal(image.permute(1, 2, 0), cv2.imread(str(root / 'train' / file)))


def test_images_must_be_readable_and_of_one_size(root):
    path = root / 'train/n04/4.png'
    cv2.imwrite(str(path), np.zeros((12, 17, 3), np.uint8))
    with pytest.raises(DataError, match=r'4.png is 12x17 pixels, .*0.png 12x16: .* of one size'):
        make_set(root)
    path.write_text('no image')
    with pytest.raises(DataError, match=r'4.png is missing or no image; replace it'):
        make_set(root)


def test_the_whole_image_or_its_mirror():
    images = torch.rand(32, 3, 8, 8)
    crops = random_resized_crop(images, 8, areas=(1, 1), ratios=(1, 1))
    mirrored = [not torch.allclose(a, b, atol=1e-5) for a, b in zip(crops, images)]
    assert 4 < sum(mirrored) < 28
    images[mirrored] = images[mirrored].flip(3)
    torch.testing.assert_close(crops, images, atol=1e-5, rtol=0)


def test_crops_lie_in_the_image_and_have_the_areas_and_ratios():
    # The image holds its own coordinates, so a crop's differences are its step in the image.
    side = torch.arange(64.0)
    image = torch.stack([side.expand(64, 64), side[:, None].expand(64, 64)])
    crops = random_resized_crop(image.expand(500, -1, -1, -1), 32, (0.35, 1.0))
    inner = crops[:, :, 2:-2, 2:-2]  # Bicubic interpolation bends the coordinates at the border.
    assert inner.min() >= 0
    assert inner.max() <= 63
    width = (inner[:, 0, 16, -1] - inner[:, 0, 16, 0]).abs() * 32 / 27 / 64
    height = (inner[:, 1, -1, 16] - inner[:, 1, 0, 16]).abs() * 32 / 27 / 64
    area, ratio = width * height, width / height
    assert 0.32 < area.min() < 0.45
    assert 0.9 < area.max() < 1.03
    assert 0.72 < ratio.min() < 0.85
    assert 1.18 < ratio.max() < 1.38


def test_a_training_batch_is_cropped_and_normalised(root):
    preprocessor = BatchCropPreprocessor(8, crop_ratio_range=(1, 1), **NORMALISATION)
    images = torch.full((4, 3, 12, 16), 0, dtype=torch.uint8)
    images[:] = torch.tensor([40, 160, 240], dtype=torch.uint8)[:, None, None]  # BGR
    out = preprocessor(dict(inputs=images, labels=torch.tensor([2, 0, 1, 1])), training=True)
    assert out['inputs'].shape == (4, 3, 8, 8)
    torch.testing.assert_close(out['inputs'][0, :, 4, 4], torch.tensor([2.0, 1.0, -1.5]))
    assert [sample.gt_score.argmax().item() for sample in out['data_samples']] == [2, 0, 1, 1]


def test_mixing_mixes_the_labels_too():
    augments = dict(augments=dict(type='Mixup', alpha=1.0))
    preprocessor = BatchCropPreprocessor(8, batch_augments=augments, **NORMALISATION)
    batch = dict(inputs=torch.zeros(3, 3, 8, 8, dtype=torch.uint8), labels=torch.arange(3))
    scores = torch.stack([s.gt_score for s in preprocessor(batch, training=True)['data_samples']])
    torch.testing.assert_close(scores.sum(1), torch.ones(3))
    assert ((scores > 0).sum(1) > 1).any()


def test_other_batches_are_treated_as_by_the_host():
    batch = dict(inputs=torch.randint(0, 256, (2, 3, 9, 7), dtype=torch.uint8))
    ours = BatchCropPreprocessor(8, **NORMALISATION)(batch)
    assert torch.equal(ours['inputs'], ClsDataPreprocessor(**NORMALISATION)(batch)['inputs'])


def test_the_config_trains(root, run_tool, tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/cloformer_xxs_tiny-imagenet-128x128.py'\n"
        "optimizer = dict(type='AdamW', lr=3e-3)\n"
        "optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=optimizer)\n"
    )
    (root / 'classes.txt').write_text('a\nb\nc\nd\ne\nf\n')
    paths = {'data_root': root, 'classes': root / 'classes.txt'}
    run_tool(
        'train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options',
        *(f'train_dataloader.dataset.dataset.{key}={value}' for key, value in paths.items()),
        *(f'val_dataloader.dataset.{key}={value}' for key, value in paths.items()),
        'train_dataloader.batch_size=4', 'val_dataloader.num_workers=0', 'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1', 'model.head.num_classes=6', 'data_preprocessor.num_classes=6',
        'data_preprocessor.size=32', 'default_hooks.logger.interval=1',
    )  # fmt: skip
    lines = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    scalars = [json.loads(line) for line in lines]
    assert [line['loss'] > 0 for line in scalars if 'loss' in line] == [True] * 3
    assert 'accuracy/top1' in scalars[-1]
