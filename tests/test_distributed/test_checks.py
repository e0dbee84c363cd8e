"""Checks of the data run in one of several processes, and end all of them."""

import json

import pytest

from mmcloformer.apis.runner import check_once
from mmcloformer.errors import CheckpointError, ConfigError, DataError, UserError
from tests.conftest import ROOT, coco_options
from tests.processes import run_in_group
from tests.test_tools.launching import finish, free_port, start


def check(rank, folder, kind):
    """Record whether this process checked, and the error that it raises."""
    ran = []

    def find():
        ran.append(rank)
        if kind is not None:
            raise kind('what to do')

    raised = []
    try:
        check_once(find)
    except UserError as error:
        raised = [type(error).__name__, str(error)]
    (folder / f'{rank}.json').write_text(json.dumps([ran, raised]))


@pytest.mark.parametrize('kind', [None, DataError, ConfigError, CheckpointError])
def test_one_process_checks_and_all_raise_its_error(tmp_path, kind):
    run_in_group(check, tmp_path / 'store', tmp_path, kind)
    found = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1)]
    raised = [kind.__name__, 'what to do'] if kind else []
    assert found == [[[0], raised], [[], raised]]


@pytest.mark.slow
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_missing_data_end_both_processes(tmp_path, tool):
    config = ROOT / 'configs/demo/retinanet_cloformer_xxs_shapes.py'
    checkpoint = [tmp_path / 'epoch_1.pth'] if tool == 'test' else []
    options = coco_options(tmp_path / 'nowhere')
    process = start(
        f'dist_{tool}.sh', config, *checkpoint, 2, '--work-dir', tmp_path / 'work',
        '--cfg-options', *options, PORT=free_port(),
    )  # fmt: skip
    output = finish(process, code=1)
    assert f'{tmp_path}/nowhere' in output
    assert not (tmp_path / 'work').exists()
