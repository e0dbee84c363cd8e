"""Images that a host leaves out without a word."""

import json
import shutil

import pytest
from mmengine.config import Config

from mmcloformer.checks.examine import check_dataset
from mmcloformer.checks.presence import check_data
from mmcloformer.errors import DataError
from tests.conftest import ROOT, coco_options


def copy_set(name, source, target):
    root = shutil.copytree(source, target)
    cfg = Config.fromfile(ROOT / f'configs/demo/{name}.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(root)
    return cfg, root


@pytest.fixture
def segmentation(shapes, tmp_path):
    name = 'semantic-fpn_cloformer_xxs_shapes'
    cfg, root = copy_set(name, shapes / 'ade20k', tmp_path / 'ade20k')
    return cfg, root / 'images' / 'training'


@pytest.fixture
def classification(shapes, tmp_path):
    cfg, root = copy_set('cloformer_xxs_shapes', shapes / 'imagenet', tmp_path / 'imagenet')
    return cfg, root / 'train'


@pytest.fixture
def detection(shapes, tmp_path):
    root = shutil.copytree(shapes / 'coco', tmp_path / 'coco')
    cfg = Config.fromfile(ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = f'{root}/annotations/instances_val2017.json'
    return cfg, root / 'annotations' / 'instances_train2017.json'


def rename(files, *suffixes):
    for file, suffix in zip(sorted(files), suffixes, strict=False):
        file.rename(file.with_suffix(suffix))


def of_left_out(warnings):
    return [warning for warning in warnings if 'left out' in warning or 'leaves' in warning]


def test_mmseg_takes_one_suffix(segmentation):
    cfg, folder = segmentation
    rename(folder.iterdir(), '.JPG', '.jpeg', '.png', '.png')
    (folder / 'notes.txt').touch()
    check_data(cfg, ('train',))
    samples, problems, warnings = check_dataset(cfg, workers=0)
    assert (samples['train'], problems) == (4, [])
    (warning,) = of_left_out(warnings)
    assert warning.startswith(
        f'train_dataloader.dataset: 4 of 8 images in {folder} are left out (2 .png, 1 .JPG, '
        "1 .jpeg): the host takes only file names that end in '.jpg', with this case "
        '(train_dataloader.dataset.img_suffix)'
    )


def test_mmseg_takes_none(segmentation):
    cfg, folder = segmentation
    rename(folder.iterdir(), *['.JPG'] * 8)
    with pytest.raises(DataError, match=r"no image is left: .*8 of 8 .* \(8 \.JPG\).*'\.jpg'"):
        check_data(cfg, ('train',))
    _, (problem,), _ = check_dataset(cfg, workers=0)
    assert 'img_suffix' in problem
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.img_suffix = '.JPG' if split == 'train' else '.jpg'
    assert check_dataset(cfg, workers=0).problems == []


def test_label_maps_beside_the_images_are_no_images(segmentation):
    cfg, folder = segmentation
    for label_map in (folder.parents[1] / 'annotations' / 'training').iterdir():
        label_map.rename(folder / label_map.name)
    cfg.train_dataloader.dataset.data_prefix.seg_map_path = 'images/training'
    samples, problems, warnings = check_dataset(cfg, workers=0)
    assert (samples['train'], problems, of_left_out(warnings)) == (8, [], [])


def test_a_list_of_images_leaves_out_what_it_is_meant_to(segmentation):
    cfg, folder = segmentation
    rename(folder.iterdir(), '.png')
    names = sorted(path.stem for path in folder.glob('*.jpg'))
    (folder.parents[1] / 'list.txt').write_text('\n'.join(names))
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    samples, problems, warnings = check_dataset(cfg, workers=0)
    assert (samples['train'], problems, of_left_out(warnings)) == (7, [], [])


def test_mmpretrain_takes_its_extensions_in_folders_of_classes(classification):
    cfg, folder = classification
    ring, star = folder / 'ring', folder / 'star'
    rename(ring.iterdir(), '.webp')
    rename(star.iterdir(), '.PNG')  # Taken.
    shutil.copy(next(star.iterdir()), folder / 'beside.png')
    samples, problems, warnings = check_dataset(cfg, workers=0)
    assert not problems
    (warning,) = of_left_out(warnings)
    assert f'2 of {samples["train"] + 2} images in {folder}' in warning
    assert '.webp' in warning
    assert 'train_dataloader.dataset.extensions' in warning
    assert 'in folders of classes only' in warning


def test_mmpretrain_takes_none(classification):
    cfg, folder = classification
    for file in [*folder.rglob('*.*')]:
        file.rename(file.with_suffix('.webp'))
    with pytest.raises(DataError, match=r'no image is left: .*\.webp\): .*extensions'):
        check_data(cfg, ('train',))
    assert any('no image is left' in each for each in check_dataset(cfg, workers=0).problems)


def small_first(content, number):
    for image in content['images'][:number]:
        image.update(width=20, height=20)


@pytest.mark.parametrize('number', [1, 8])
def test_mmdets_smallest_size(detection, number):
    """With a size that only the file has."""
    cfg, file = detection
    content = json.loads(file.read_text())
    small_first(content, number)
    for each in content['annotations']:
        each['bbox'] = [1, 1, 9, 9]
    file.write_text(json.dumps(content))
    words = rf'{number} of 8 images have a shorter side below filter_cfg\.min_size=32 \(set filter_'
    if number == 8:
        with pytest.raises(DataError, match=f'no image is left for training: {words}'):
            check_data(cfg, ('train', 'val'))
        assert 'no image is left for training' in check_dataset(cfg, workers=0).problems[0]
    else:
        check_data(cfg, ('train', 'val'))
        samples, _, warnings = check_dataset(cfg, workers=0)
        assert samples['train'] == 7
        assert 'filter_cfg.min_size=20 to keep them' in of_left_out(warnings)[0]


def test_mmdets_images_without_objects(detection):
    cfg, file = detection
    content = json.loads(file.read_text())
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] > 2]
    file.write_text(json.dumps(content))
    samples, problems, warnings = check_dataset(cfg, workers=0)
    assert (samples['train'], problems) == (6, [])
    assert '2 of 8 images have no object of the classes' in of_left_out(warnings)[0]
    cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt = False
    samples, problems, warnings = check_dataset(cfg, workers=0)
    assert (samples['train'], problems, of_left_out(warnings)) == (8, [], [])


def test_the_tool_exits_with_0_after_warnings(detection, tool_main):
    _, file = detection
    content = json.loads(file.read_text())
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] > 2]
    file.write_text(json.dumps(content))
    output = tool_main(
        'check_dataset.py', ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py',
        '--workers', 0, '--cfg-options', *coco_options(file.parents[1]),
    )  # fmt: skip
    assert output.startswith(f'warning: {file} (train_dataloader.dataset): the host leaves images')
    assert 'all 10 samples are good (train 6, val 4)' in output
    assert output.count('warning: ') >= 1
    assert 'listed above' in output
