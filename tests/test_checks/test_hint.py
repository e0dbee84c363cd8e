"""Crashes of real data are in `test_bad_data.py`."""

import pytest
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader

from mmcloformer.checks.hint import suggest_data_check
from mmcloformer.errors import UserError


class Broken(BaseDataset):
    def load_data_list(self):
        return [dict(img_path='absent.jpg')] * 4

    def prepare_data(self, index):
        raise OSError('image file is truncated')


def load_in_process():
    next(iter(DataLoader(Broken())))


def load_in_worker():
    next(iter(DataLoader(Broken(), num_workers=1)))


def build():
    BaseDataset(ann_file=__file__)


def gpu():
    raise RuntimeError('CUDA error: device-side assert triggered')


@pytest.mark.parametrize('fail', [load_in_process, load_in_worker, build, gpu])
def test_crashes_of_the_data(fail, capsys):
    named = pytest.raises(SystemExit, match=r'tools/misc/check_dataset\.py my_config\.py')
    with named, suggest_data_check('my_config.py'):
        fail()
    trace = capsys.readouterr().err
    assert trace.startswith('Traceback')
    assert f'in {fail.__name__}' in trace


@pytest.mark.parametrize(
    'error', [UserError('as it is'), ValueError('of a layer'), KeyboardInterrupt()]
)
def test_others_pass(error, capsys):
    with pytest.raises(type(error)), suggest_data_check('my_config.py'):
        raise error
    assert not capsys.readouterr().err
