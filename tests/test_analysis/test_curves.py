import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from mmengine.visualization import LocalVisBackend
from PIL import Image

from mmcloformer.analysis.curves import main_metric, plot_curves, read_curves
from mmcloformer.errors import UserError


def log(work_dir, start):
    """A backend that writes as mmengine does for the run started at `start`."""
    return LocalVisBackend(str(work_dir / start / 'vis_data'))


def train_line(iteration, loss=1.0, **more):
    return {
        'base_lr': 1e-3,
        'lr': 1e-3 / iteration,
        'data_time': 0.1,
        'loss': loss,
        'loss_cls': loss / 2,
        'decode.loss_ce': loss / 2,
        'decode.acc_seg': 50.0,
        'time': 0.5,
        **more,
        'iter': iteration,
        'memory': 1000,
    }


def write_iter_run(work_dir, start, iterations, loss=1.0, every=20):
    backend = log(work_dir, start)
    for i in iterations:
        backend.add_scalars(train_line(i, loss), step=i)
        if i % every == 0:
            backend.add_scalars(
                {'aAcc': 60.0, 'mIoU': i / 10, 'mAcc': 50.0, 'data_time': 0.1, 'time': 0.1}, step=i
            )


def write_epoch_run(work_dir, start, epochs, length=10):
    backend = log(work_dir, start)
    for epoch in epochs:
        for i in range((epoch - 1) * length + 5, epoch * length + 1, 5):
            backend.add_scalars(train_line(i, epoch=epoch), step=i)
        backend.add_scalars(
            {
                'coco/bbox_mAP': epoch / 10,
                'coco/bbox_mAP_50': epoch / 5,
                'coco/bbox_mAP_l': -1.0,
                'accuracy/top1': 10.0 * epoch,
                'data_time': 0.1,
                'time': 0.1,
            },
            step=epoch,
        )


def test_iterations_of_an_iteration_based_run(tmp_path):
    write_iter_run(tmp_path, '20260101_000000', range(10, 101, 10))
    training, metrics = read_curves(tmp_path)
    assert [*training['loss']] == list(range(10, 101, 10))
    assert metrics['mIoU'] == {20: 2, 40: 4, 60: 6, 80: 8, 100: 10}


def test_epochs_become_iterations_and_only_results_are_metrics(tmp_path):
    write_epoch_run(tmp_path, '20260101_000000', [1, 2, 3])
    training, metrics = read_curves(tmp_path)
    assert metrics['coco/bbox_mAP'] == {10: 0.1, 20: 0.2, 30: 0.3}
    # bbox_mAP_l is -1 throughout, that is, undefined.
    assert set(metrics) == {'coco/bbox_mAP', 'coco/bbox_mAP_50', 'accuracy/top1'}
    assert not {'time', 'data_time', 'memory', 'epoch', 'iter', 'step'} & set(training)
    assert main_metric(metrics) == 'coco/bbox_mAP'
    assert main_metric(['pascal_voc/mAP', 'pascal_voc/AP50']) == 'pascal_voc/mAP'
    # All that mmdet reports for a detector that found no object.
    for nothing in ([], ['data_time', 'time']):
        with pytest.raises(UserError, match='no evaluation reported a result'):
            main_metric(nothing)


def test_a_resumed_run_replaces_what_came_after_its_start(tmp_path):
    write_iter_run(tmp_path, '20260101_000000', range(10, 71, 10), loss=1.0)
    # Resumed from iteration 40, at another logging interval, and stopped early.
    write_iter_run(tmp_path, '20260102_000000', range(44, 61, 4), loss=2.0)
    log(tmp_path, '20260103_000000').add_scalars({'mIoU': 99.0, 'time': 0.1}, step=0)
    with (tmp_path / '20260102_000000/vis_data/scalars.json').open('a') as file:
        file.write('{"lr": 0.001, "loss": 0.5, "it')  # It was killed.
    training, metrics = read_curves(tmp_path)
    assert [*training['loss']] == [10, 20, 30, 40, 44, 48, 52, 56, 60]
    assert [*training['loss'].values()] == [1] * 4 + [2] * 5
    assert [*metrics['mIoU']] == [20, 40, 60]


def test_an_evaluation_that_a_resumed_run_makes_up_for(tmp_path):
    write_epoch_run(tmp_path / 'epochs', '20260101_000000', [1, 2, 3])
    log(tmp_path / 'epochs', '20260102_000000').add_scalars({'coco/bbox_mAP': 0.7}, step=2)
    write_epoch_run(tmp_path / 'epochs', '20260102_000000', [3, 4])
    metrics = read_curves(tmp_path / 'epochs')[1]
    assert metrics['coco/bbox_mAP'] == {10: 0.1, 20: 0.7, 30: 0.3, 40: 0.4}
    write_iter_run(tmp_path / 'iterations', '20260101_000000', range(10, 40, 10))
    log(tmp_path / 'iterations', '20260102_000000').add_scalars({'mIoU': 7.0}, step=40)
    write_iter_run(tmp_path / 'iterations', '20260102_000000', range(50, 61, 10))
    assert read_curves(tmp_path / 'iterations')[1]['mIoU'] == {20: 2.0, 40: 7.0, 60: 6.0}


def test_negative_losses_are_in_the_picture(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *_, **__: figures.append(figure))
    for sign in (1, -1):
        write_iter_run(tmp_path / str(sign), '20260101_000000', range(10, 31, 10), loss=sign * 2.0)
        plot_curves(tmp_path / str(sign))
    positive, negative = (figure.axes[0].get_ylim() for figure in figures)
    assert positive[0] == 0
    assert negative[0] < -2 < 0 <= positive[1]


@pytest.mark.parametrize('name', ['curves', 'run.v2'])
def test_a_name_without_the_ending_of_an_image(tmp_path, name):
    write_iter_run(tmp_path, '20260101_000000', range(10, 31, 10), loss=1.0)
    with pytest.raises(UserError, match=f'{name} must have the ending of an image'):
        plot_curves(tmp_path, tmp_path / name)


def test_no_log_is_reported(tmp_path):
    with pytest.raises(UserError, match='no training iteration'):
        plot_curves(tmp_path)
    assert not list(tmp_path.glob('*.png'))


def test_the_picture_and_the_points(tool_main, tmp_path):
    write_epoch_run(tmp_path / 'run', '20260101_000000', [1, 2])
    tool_main('plot_curves.py', tmp_path / 'run', '--json', tmp_path / 'new/curves.json')
    with Image.open(tmp_path / 'run/curves.png') as image:
        assert np.asarray(image.convert('L')).std() > 10
    points = json.loads((tmp_path / 'new/curves.json').read_text())
    assert points['accuracy/top1'] == {'10': 10.0, '20': 20.0}
    assert points['lr']['15'] == pytest.approx(1e-3 / 15, rel=1e-4)
    chosen = tmp_path / 'new/chosen.png'
    assert plot_curves(tmp_path / 'run', chosen) == chosen
    assert chosen.is_file()
