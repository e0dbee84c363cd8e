"""The config override of docs/cluster.md shards a model over two processes on the CPU."""

import re

import pytest
import torch

from mmcloformer.checkpoint import read_checkpoint
from tests.conftest import ROOT, coco_options
from tests.test_tools.launching import launch

DEMO = 'configs/demo/retinanet_cloformer_xxs_shapes.py'


@pytest.fixture(scope='module')
def sharded(tmp_path_factory):
    text = (ROOT / 'docs' / 'cluster.md').read_text()
    (override,) = (b for b in re.findall(r'```python\n(.*?)```', text, re.DOTALL) if 'FSDP' in b)
    path = tmp_path_factory.mktemp('fsdp') / 'sharded.py'
    path.write_text(f"_base_ = '{ROOT / DEMO}'\n{override}")
    return path


@pytest.mark.slow
def test_a_sharded_run_steps_like_a_plain_one(sharded, shapes, run_logged, tmp_path):
    options = [*coco_options(shapes / 'coco'), 'train_dataloader.batch_size=2']
    device = 'strategy.model_wrapper.device_id=cpu'
    short = 'train_cfg.max_epochs=1'
    for name, config, more in (('plain', DEMO, []), ('sharded', sharded, [device])):
        launch('dist_train.sh', config, 2, '--work-dir', tmp_path / name,
               '--cfg-options', *options, short, *more)  # fmt: skip
    plain, sharded = (
        read_checkpoint(tmp_path / name / 'epoch_1.pth') for name in ('plain', 'sharded')
    )
    for key, weight in plain['state_dict'].items():
        torch.testing.assert_close(sharded['state_dict'][key], weight, rtol=1e-5, atol=1e-7)
    (group,) = sharded['optimizer']['param_groups']
    for index, key in enumerate(group['params']):
        moments = plain['optimizer']['state'][index]
        torch.testing.assert_close(sharded['optimizer']['state'][key], moments)
    # A plain run goes on from it, optimizer included.
    log = run_logged(
        'train.py', ROOT / DEMO, '--resume', tmp_path / 'sharded' / 'epoch_1.pth',
        '--cfg-options', *options, 'train_cfg.max_epochs=2', work_dir=tmp_path / 'on',
    )  # fmt: skip
    assert 'resumed epoch: 1, iter: 2' in log
    assert read_checkpoint(tmp_path / 'on' / 'epoch_2.pth')['meta']['iter'] == 6
