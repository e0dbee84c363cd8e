"""The same seed on the same machine gives the same weights, resumed or not."""

import pytest
from mmengine.config import Config

from mmcloformer.checkpoint import read_checkpoint
from tests.tiny import write_classifier, write_detector


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'ConcatDataset'])
@pytest.mark.parametrize('write', [write_detector, write_classifier])
def test_a_resumed_run_ends_as_another_run(run_logged, shapes, tmp_path, write, wrapper):
    """With shuffled images, flips drawn in workers, drop path and a scheduled rate."""
    cfg = Config.fromfile(write(tmp_path / 'tiny.py', shapes, epochs=2))
    dataset = cfg.train_dataloader.dataset
    dataset.indices = 4
    cfg.train_dataloader.dataset = (
        dict(type=wrapper, dataset=dataset, times=2)
        if wrapper == 'RepeatDataset'
        else dict(type=wrapper, datasets=[dataset, dataset])
    )
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    cfg.dump(tmp_path / 'whole.py')
    # The first part ends after an epoch, without a change of the schedule.
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='TimeLimitHook', minutes=0)]
    cfg.dump(tmp_path / 'part.py')
    for name, config in (('alone', 'whole'), ('resumed', 'part'), ('resumed', 'whole')):
        run_logged(
            'train.py', tmp_path / f'{config}.py', '--resume', '--cfg-options',
            work_dir=tmp_path / name,
        )  # fmt: skip
    assert not (tmp_path / 'alone' / 'epoch_3.pth').exists()
    alone, resumed = (
        read_checkpoint(tmp_path / name / 'epoch_2.pth') for name in ('alone', 'resumed')
    )
    assert alone['meta']['iter'] == resumed['meta']['iter'] > 2
    assert alone['state_dict'].keys() == resumed['state_dict'].keys()
    for key, value in alone['state_dict'].items():
        assert value.equal(resumed['state_dict'][key]), key
