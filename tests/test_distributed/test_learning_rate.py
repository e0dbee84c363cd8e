"""What `--auto-scale-lr` rests on: a base that adds up, and no rate that it leaves behind."""

import pytest
from mmengine.config import Config

from tests.helpers_configs import CONFIGS, processes

# The templates for own data are trained with --auto-scale-lr.
RECIPES = [
    path for path in CONFIGS if path.parent.name == 'configs' and not path.stem.endswith('_custom')
]


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_on_its_gpus_the_rates_are_as_written(path):
    cfg = Config.fromfile(path)
    assert processes(path) * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_whole_schedule_is_in_ratios(path):
    for scheduler in Config.fromfile(path).param_scheduler:
        assert not scheduler.get('eta_min')
