"""The template for a user's own data, filled in as its comment says and run by the tools."""

import pytest
import torch
from mmengine.config import Config

from mmcloformer import CloFormer
from tests.conftest import ROOT

TEMPLATE = ROOT / 'configs' / 'retinanet_cloformer_xs_custom.py'
SMALL = [
    'train_dataloader.dataset.pipeline.2.scale=(128,128)',
    'val_dataloader.dataset.pipeline.1.scale=(128,128)',
    'train_dataloader.dataset.indices=4',
    'val_dataloader.dataset.indices=2',
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
    'model.test_cfg.score_thr=0',  # So that an untrained head finds something.
]


@pytest.fixture
def fill_in(tmp_path):
    """Copy the template and set lines of it, each named by how it starts."""

    def fill_in(**lines):
        base = f"_base_ = '{ROOT}/configs/retinanet_cloformer_xs_coco.py'"
        text = TEMPLATE.read_text().replace("_base_ = 'retinanet_cloformer_xs_coco.py'", base)
        rows = text.splitlines()
        for name, value in lines.items():
            (row,) = [i for i, row in enumerate(rows) if row.startswith(f'{name} = ')]
            rows[row] = f'{name} = {value}'
        for uncommented in ("# model['backbone'] = ", '# load_from = '):
            assert sum(row.startswith(uncommented) for row in rows) == 1
        path = tmp_path / 'mine.py'
        path.write_text('\n'.join(rows) + '\n')
        return path

    return fill_in


def uncomment(path, start, checkpoint):
    text = path.read_text()
    (row,) = [row for row in text.splitlines() if row.startswith(f'# {start}')]
    placeholder = row.split("'")[-2]
    path.write_text(text.replace(row, row.removeprefix('# ').replace(placeholder, str(checkpoint))))


def test_it_inherits_the_recipe():
    cfg, coco = (
        Config.fromfile(TEMPLATE.parent / name)
        for name in (TEMPLATE, 'retinanet_cloformer_xs_coco.py')
    )
    assert cfg.optim_wrapper == coco.optim_wrapper
    assert cfg.train_dataloader.dataset.pipeline == coco.train_dataloader.dataset.pipeline


@pytest.mark.slow
def test_it_starts_from_a_classifier_and_from_a_detector(
    run_logged, fill_in, shapes, tmp_path, capsys
):
    config = fill_in(root=repr(f'{shapes}/coco/'))
    backbone = CloFormer('xs', out_indices=(3,)).state_dict()
    classifier = tmp_path / 'imagenet.pth'
    torch.save({f'backbone.{key}': value for key, value in backbone.items()}, classifier)
    uncomment(config, "model['backbone']", classifier)
    log = run_logged(
        'train.py', config, '--auto-scale-lr', '--cfg-options', *SMALL,
        work_dir=tmp_path / 'first',
    )  # fmt: skip
    assert 'CloFormer: loaded' in log
    assert 'coco/bbox_mAP:' in log
    log = run_logged(
        'test.py', config, tmp_path / 'first' / 'epoch_1.pth', '--cfg-options',
        *(option.replace('val_', 'test_') for option in SMALL), work_dir=tmp_path / 'test',
    )  # fmt: skip
    assert 'coco/bbox_mAP:' in log

    # A detector of other classes, as COCO's 80: all but the last layer of its head is taken.
    config = fill_in(root=repr(f'{shapes}/coco/'), classes="('ring', 'square', 'star')")
    uncomment(config, 'load_from', tmp_path / 'first' / 'epoch_1.pth')
    run_logged('train.py', config, '--cfg-options', *SMALL, work_dir=tmp_path / 'second')
    # The host prints this and does not log it.
    assert 'size mismatch for bbox_head.retina_cls.weight' in capsys.readouterr().out
    weights = torch.load(tmp_path / 'second' / 'epoch_1.pth', weights_only=False)['state_dict']
    assert len(weights['bbox_head.retina_cls.bias']) == 9 * 3


def test_a_wrong_class_stops_before_training(tool_error, fill_in, shapes):
    config = fill_in(root=repr(f'{shapes}/coco/'), classes="('ring', 'cube')")
    message = tool_error('train.py', config)
    assert 'no category is called cube; there are ring, square, star, triangle' in message


def test_real_photographs(run_logged, fill_in, real_data, tmp_path):
    layout = "dict(ann_file='annotations.json', data_prefix=dict(img='images/'))"
    config = fill_in(
        root=repr(f'{real_data}/fruits_nuts/'),
        classes="('date', 'fig', 'hazelnut')",
        train=layout,
        val=layout,
    )
    log = run_logged('train.py', config, '--cfg-options', *SMALL, work_dir=tmp_path / 'work')
    assert 'coco/bbox_mAP:' in log
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
