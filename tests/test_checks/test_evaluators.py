"""An evaluator whose file is not its loader's; `test_bad_data.py` has bad files of evaluators."""

import json
import shutil

import pytest
from mmengine.config import Config

from mmcloformer.checks.evaluators import check_evaluators
from mmcloformer.checks.presence import check_data
from mmcloformer.errors import DataError
from tests.conftest import ROOT, coco_options


@pytest.fixture
def root(shapes, tmp_path):
    return shutil.copytree(shapes / 'coco', tmp_path / 'coco')


@pytest.fixture
def cfg(root):
    cfg = Config.fromfile(ROOT / 'configs/retinanet_cloformer_xxs_custom.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = f'{root}/annotations/instances_val2017.json'
    return cfg


def rewrite(root, change):
    """Write a changed copy of the validation file."""
    content = json.loads((root / 'annotations/instances_val2017.json').read_text())
    change(content)
    file = root / 'annotations' / 'changed.json'
    file.write_text(json.dumps(content))
    return str(file)


def message(cfg, split='val'):
    with pytest.raises(DataError, match='evaluator and loader do not fit') as error:
        check_data(cfg, (split,))
    return str(error.value)


def test_the_evaluator_was_not_changed_with_the_loader(cfg, root):
    train = f'{root}/annotations/instances_train2017.json'
    cfg.val_dataloader.dataset.update(ann_file=train, data_prefix=dict(img='train2017/'))
    text = message(cfg)
    assert f'val_evaluator.ann_file is {root}/annotations/instances_val2017.json' in text
    assert f'val_dataloader.dataset reads {train}' in text
    assert '4 of the 8 images of the dataset are not' in text
    assert f'set val_evaluator.ann_file={train}' in text


def test_the_loader_was_not_changed_with_the_evaluator(cfg, root):
    """Ids of both files start at 1, so the host would compare images with others."""
    cfg.test_evaluator.ann_file = f'{root}/annotations/instances_train2017.json'
    # The scenes have the same names in both folders.
    content = json.loads((root / 'annotations/instances_train2017.json').read_text())
    for image in content['images']:
        image['file_name'] = f'train_{image["file_name"]}'
    (root / 'annotations/instances_train2017.json').write_text(json.dumps(content))
    check_evaluators(cfg, ('val',))
    text = message(cfg, 'test')
    assert 'test_evaluator.ann_file is' in text
    assert '4 image ids belong to other images (image_id 1 is 000000000001.png in' in text


def test_more_images_with_objects_than_are_predicted(cfg, root):
    def add(content):
        content['images'].append(dict(content['images'][0], id=77, file_name='77.png'))
        content['annotations'].append(dict(content['annotations'][0], id=777, image_id=77))

    cfg.val_evaluator = [dict(cfg.val_evaluator, ann_file=rewrite(root, add))]
    text = message(cfg)
    assert 'val_evaluator.0.ann_file' in text
    assert '1 more images with objects (image_id 77)' in text
    cfg.val_dataloader.dataset.indices = 2  # Only for a quick look.
    check_evaluators(cfg, ('val',))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda names: names.reverse(), 'lists the classes as triangle, star, square, ring'),
        (lambda names: names.remove('star'), 'has no category called star'),
    ],
)
def test_other_classes(cfg, root, change, words):
    def rename(content):
        names = [category['name'] for category in content['categories']]
        change(names)
        content['categories'] = [
            dict(id=number, name=name) for number, name in enumerate(names, start=1)
        ]

    cfg.val_evaluator.ann_file = rewrite(root, rename)
    assert words in message(cfg)


def add_an_empty_image(content):
    content['images'].append(dict(content['images'][0], id=77, file_name='77.png'))


def correct_a_box(content):
    content['annotations'][0]['bbox'] = [1, 2, 3, 4]


def rename_images(content):
    for image in content['images']:
        image['file_name'] = f'original/{image["id"]}.jpg'


def reorder(content):
    content['images'].reverse()
    content['annotations'].reverse()


@pytest.mark.parametrize('change', [add_an_empty_image, correct_a_box, rename_images, reorder])
def test_another_file_that_does_no_harm_passes(cfg, root, change):
    cfg.val_evaluator.ann_file = rewrite(root, change)
    check_data(cfg, ('train', 'val'))


def test_the_same_file_in_other_words_passes(cfg, root, monkeypatch):
    monkeypatch.chdir(root.parent)
    cfg.val_dataloader.dataset.data_root = 'coco'
    cfg.val_evaluator.ann_file = f'./coco/../{root.name}/annotations/instances_val2017.json'
    (root / 'link.json').symlink_to(root / 'annotations/instances_val2017.json')
    cfg.test_evaluator.ann_file = 'coco/link.json'
    check_evaluators(cfg, ('val', 'test'))


def test_wrappers_remote_files_and_other_metrics_are_left_to_the_host(cfg, root):
    other = f'{root}/annotations/instances_train2017.json'
    inner = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, inner])
    cfg.val_evaluator.ann_file = other
    cfg.test_evaluator = [dict(type='LoopMetric'), dict(cfg.test_evaluator, format_only=True)]
    cfg.test_dataloader.dataset.ann_file = other
    check_evaluators(cfg, ('val', 'test'))
    cfg.val_dataloader.dataset = inner
    cfg.val_evaluator.ann_file = 's3://bucket/val.json'
    check_evaluators(cfg, ('val',))


def test_check_dataset_says_it(tool_main, root, tool_error, capsys):
    config = ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py'
    options = coco_options(root)
    assert 'are good' in tool_main('check_dataset.py', config, '--cfg-options', *options)
    options.append(f'test_evaluator.ann_file={rewrite(root, lambda content: None)}')
    file = rewrite(root, lambda content: content['images'].pop())
    tool_error('check_dataset.py', config, '--workers', 0, '--cfg-options', *options)
    printed = capsys.readouterr().out
    assert f'test_evaluator.ann_file is {file}' in printed
    assert '\nval_evaluator' not in printed
