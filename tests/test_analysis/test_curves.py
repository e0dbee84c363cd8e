import json

import numpy as np
import pytest
from mmengine.visualization import LocalVisBackend
from PIL import Image

from mmcloformer.analysis.curves import plot_curves, read_curves, save_curves, smooth
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
    curves = read_curves(tmp_path)
    assert curves.training['loss'].iterations.tolist() == list(range(10, 101, 10))
    assert curves.metrics['mIoU'].iterations.tolist() == [20, 40, 60, 80, 100]
    assert curves.metrics['mIoU'].values.tolist() == [2, 4, 6, 8, 10]


def test_epochs_become_iterations(tmp_path):
    write_epoch_run(tmp_path, '20260101_000000', [1, 2, 3])
    curves = read_curves(tmp_path)
    assert curves.metrics['coco/bbox_mAP'].iterations.tolist() == [10, 20, 30]
    assert curves.metrics['coco/bbox_mAP'].values.tolist() == [0.1, 0.2, 0.3]


def test_only_results_are_metrics(tmp_path):
    write_epoch_run(tmp_path, '20260101_000000', [1])
    curves = read_curves(tmp_path)
    # bbox_mAP_l is -1 throughout, that is, undefined.
    assert set(curves.metrics) == {'coco/bbox_mAP', 'coco/bbox_mAP_50', 'accuracy/top1'}
    assert not {'time', 'data_time', 'memory', 'epoch', 'iter', 'step'} & set(curves.training)


def test_a_resumed_run_replaces_what_came_after_its_start(tmp_path):
    write_iter_run(tmp_path, '20260101_000000', range(10, 71, 10), loss=1.0)
    # Resumed from iteration 40, at another logging interval, and stopped early.
    write_iter_run(tmp_path, '20260102_000000', range(44, 61, 4), loss=2.0)
    curves = read_curves(tmp_path)
    loss = curves.training['loss']
    assert loss.iterations.tolist() == [10, 20, 30, 40, 44, 48, 52, 56, 60]
    assert loss.values.tolist() == [1] * 4 + [2] * 5
    assert curves.metrics['mIoU'].iterations.tolist() == [20, 40, 60]


def test_a_run_that_never_trained_changes_nothing(tmp_path):
    write_iter_run(tmp_path, '20260101_000000', range(10, 41, 10))
    before = read_curves(tmp_path)
    log(tmp_path, '20260102_000000').add_scalars({'mIoU': 99.0, 'time': 0.1}, step=0)
    after = read_curves(tmp_path)
    assert after.metrics['mIoU'].values.tolist() == before.metrics['mIoU'].values.tolist()


def test_a_broken_last_line_is_passed_over(tmp_path):
    write_iter_run(tmp_path, '20260101_000000', range(10, 41, 10))
    file = tmp_path / '20260101_000000/vis_data/scalars.json'
    whole = read_curves(tmp_path)
    with file.open('a') as stream:
        stream.write('{"lr": 0.001, "loss": 0.5, "it')
    assert read_curves(tmp_path).training.keys() == whole.training.keys()
    assert read_curves(tmp_path).training['loss'].iterations[-1] == 40


def test_a_broken_line_in_between_is_reported(tmp_path):
    write_iter_run(tmp_path, '20260101_000000', [10])
    file = tmp_path / '20260101_000000/vis_data/scalars.json'
    file.write_text('{"lr": \n' + file.read_text())
    with pytest.raises(UserError, match=r'scalars\.json is damaged at line 1'):
        read_curves(tmp_path)


def test_no_log_is_reported(tmp_path):
    with pytest.raises(UserError, match='no log in'):
        plot_curves(tmp_path)
    log(tmp_path, '20260101_000000').add_scalars({'mIoU': 1.0}, step=0)
    with pytest.raises(UserError, match='no training iteration'):
        plot_curves(tmp_path)
    assert not list(tmp_path.glob('*.png'))


def test_smoothing_keeps_a_constant_and_damps_noise():
    assert np.allclose(smooth(np.full(9, 3.0), 5), 3)
    noise = np.random.default_rng(0).normal(size=300)
    assert smooth(noise, 9).std() < noise.std() / 2
    assert np.array_equal(smooth(noise, 1), noise)


def test_plot_has_a_panel_for_losses_and_for_each_family_of_metrics(tmp_path):
    write_iter_run(tmp_path, '20260101_000000', range(10, 41, 10))
    default = plot_curves(tmp_path)
    assert default == tmp_path / 'curves.png'
    with Image.open(default) as image:
        two_panels = image.height
        assert np.asarray(image.convert('L')).std() > 10

    other = tmp_path / 'other'
    write_epoch_run(other, '20260101_000000', [1, 2])
    target = plot_curves(other, tmp_path / 'chosen.png')
    assert target == tmp_path / 'chosen.png'
    assert not (other / 'curves.png').exists()
    with Image.open(target) as image:
        assert image.height == pytest.approx(two_panels * 3 / 2, abs=2)


def test_saved_points_are_those_read(tmp_path):
    write_epoch_run(tmp_path, '20260101_000000', [1, 2])
    points = json.loads(save_curves(tmp_path, tmp_path / 'new/curves.json').read_text())
    assert points['accuracy/top1'] == {'10': 10.0, '20': 20.0}
    assert points['loss'] == {'5': 1.0, '10': 1.0, '15': 1.0, '20': 1.0}
    assert points['lr']['15'] == pytest.approx(1e-3 / 15, rel=1e-4)
