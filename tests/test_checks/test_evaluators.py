"""An evaluator whose file is not its loader's; `test_bad_data.py` has bad files of evaluators."""

import json
import shutil

import pytest
from mmengine.config import Config

from mmcloformer.checks.evaluators import evaluator_problems
from mmcloformer.checks.presence import check_data
from mmcloformer.config import ConfigView
from mmcloformer.errors import DataError
from tests.conftest import ROOT, coco_options
from tests.spelling import SPELLINGS, spell


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


def problems(cfg, split='val'):
    return list(evaluator_problems(ConfigView(cfg), (split,)))


def problem(cfg, split='val'):
    (found,) = problems(cfg, split)
    return found


@pytest.mark.parametrize('spelling', SPELLINGS)
@pytest.mark.parametrize('metric', ['CocoMetric', 'LVISMetric', 'CocoPanopticMetric'])
def test_the_evaluator_was_not_changed_with_the_loader(cfg, root, spelling, metric):
    train = f'{root}/annotations/instances_train2017.json'
    cfg.val_dataloader.dataset.update(ann_file=train, data_prefix=dict(img='train2017/'))
    cfg.val_dataloader.dataset.type = spell('mmdet', 'DATASETS', 'CocoDataset', spelling)
    cfg.val_evaluator.type = spell('mmdet', 'METRICS', metric, spelling)
    found = problem(cfg)
    assert found.field == 'val_evaluator.ann_file'
    assert '4 of the 8 images of the dataset are not' in found.found
    with pytest.raises(DataError, match='val_evaluator'):
        check_data(cfg, ('val',))


def test_the_loader_was_not_changed_with_the_evaluator(cfg, root):
    """Ids of both files start at 1, so the host would compare images with others."""
    cfg.test_evaluator.ann_file = f'{root}/annotations/instances_train2017.json'
    # The scenes have the same names in both folders.
    content = json.loads((root / 'annotations/instances_train2017.json').read_text())
    for image in content['images']:
        image['file_name'] = f'train_{image["file_name"]}'
    (root / 'annotations/instances_train2017.json').write_text(json.dumps(content))
    assert problems(cfg) == []
    found = problem(cfg, 'test')
    assert found.field == 'test_evaluator.ann_file'
    assert 'image ids belong to other images (image_id 1 is 000000000001.png' in found.found


def two_sets(cfg, root, shift, **outer):
    """Validate on the validation and the training set, with other ids in the second."""
    content = json.loads((root / 'annotations/instances_train2017.json').read_text())
    for image in content['images']:
        image['id'] += shift
    for each in content['annotations']:
        each['image_id'] += shift
    file = root / 'annotations/second.json'
    file.write_text(json.dumps(content))
    first = cfg.val_dataloader.dataset
    second = dict(first, ann_file=str(file), data_prefix=dict(img='train2017/'))
    cfg.val_dataloader.dataset = dict(dict(type='ConcatDataset', datasets=[first, second]), **outer)


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_two_sets_with_the_same_ids_under_one_evaluator(cfg, root, spelling):
    two_sets(cfg, root, 0, type=spell('mmengine', 'DATASETS', 'ConcatDataset', spelling))
    found = problem(cfg)
    assert found.field == 'val_evaluator'
    assert '4 ids in common (image_id 1, 2, 3, 4)' in found.found
    cfg.val_evaluator.pop('ann_file')
    assert problem(cfg) == found
    metric = dict(cfg.val_evaluator)
    for kind in ('Evaluator', None):
        cfg.val_evaluator = dict(metrics=[metric], **dict(type=kind) if kind else {})
        assert problem(cfg) == found._replace(field='val_evaluator.metrics.0')
    several = dict(type='MultiDatasetsEvaluator', dataset_prefixes=['a', 'b'])
    cfg.val_evaluator = dict(several, metrics=[metric] * 2)
    assert problems(cfg) == []


def test_two_sets_with_ids_of_their_own_pass_with_a_file_of_both(cfg, root):
    two_sets(cfg, root, 1000)
    assert 'are not in the evaluator' in problem(cfg).found
    contents = [
        json.loads((root / 'annotations' / name).read_text())
        for name in ('instances_val2017.json', 'second.json')
    ]
    both = dict(contents[0])
    for key in ('images', 'annotations'):
        both[key] = contents[0][key] + contents[1][key]
    (root / 'both.json').write_text(json.dumps(both))
    cfg.val_evaluator.ann_file = f'{root}/both.json'
    assert problems(cfg) == []
    cfg.val_evaluator.pop('ann_file')
    assert problems(cfg) == []


def test_more_images_with_objects_than_are_predicted(cfg, root):
    def add(content):
        content['images'].append(dict(content['images'][0], id=77, file_name='77.png'))
        content['annotations'].append(dict(content['annotations'][0], id=777, image_id=77))

    cfg.val_evaluator = [dict(cfg.val_evaluator, ann_file=rewrite(root, add))]
    found = problem(cfg)
    assert found.field == 'val_evaluator.0.ann_file'
    assert '1 more images with objects (image_id 77)' in found.found
    cfg.val_dataloader.dataset.indices = 2  # Only for a quick look.
    assert problems(cfg) == []


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
    assert problems(cfg) == problems(cfg, 'test') == []


def test_wrappers_remote_files_and_other_metrics_are_left_to_the_host(cfg, root):
    other = f'{root}/annotations/instances_train2017.json'
    inner = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    cfg.val_evaluator.ann_file = other
    cfg.test_evaluator = [dict(type='LoopMetric'), dict(cfg.test_evaluator, format_only=True)]
    cfg.test_dataloader.dataset.ann_file = other
    assert problems(cfg) == problems(cfg, 'test') == []
    cfg.val_dataloader.dataset = inner
    cfg.val_evaluator.ann_file = 's3://bucket/val.json'
    assert problems(cfg) == []


def test_check_dataset_says_it(tool_main, root, tool_error, capsys):
    config = ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py'
    options = coco_options(root)
    assert 'are good' in tool_main('check_dataset.py', config, '--cfg-options', *options)
    options.append(f'test_evaluator.ann_file={rewrite(root, lambda content: None)}')
    file = rewrite(root, lambda content: content['images'].pop())
    tool_error('check_dataset.py', config, '--workers', 0, '--cfg-options', *options)
    printed = capsys.readouterr().out
    assert f'test_evaluator.ann_file: is {file}' in printed
    assert '\nval_evaluator' not in printed
