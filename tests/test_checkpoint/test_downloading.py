"""Checkpoints from URLs, in one process and in two real ones."""

import os

import pytest
import torch
from mmengine.runner import CheckpointLoader, checkpoint
from torch import distributed, multiprocessing

from mmcloformer.checkpoint import downloading
from mmcloformer.errors import CheckpointError

WEIGHTS = torch.arange(1000.0)


@pytest.fixture
def url(tmp_path, server, monkeypatch):
    torch.save(dict(state_dict=dict(weight=WEIGHTS)), tmp_path / 'good.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    return f'{server.url}/good.pth'


def load(url):
    return CheckpointLoader.load_checkpoint(url)['state_dict']['weight']


def test_a_file_is_downloaded_once_and_kept(url, server):
    for _ in range(2):
        assert torch.equal(load(url), WEIGHTS)
    assert server.requests == ['/good.pth']


def test_the_hosts_function_keeps_its_arguments(url, server, tmp_path):
    loaded = checkpoint.load_from_http(url, 'cpu', model_dir=tmp_path / 'folder', progress=False)
    assert torch.equal(loaded['state_dict']['weight'], WEIGHTS)
    assert [path.name for path in (tmp_path / 'folder').iterdir()] == ['good.pth']


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('absent.pth', '404'),
        ('truncated/x.pth', 'ended after 10 of 1000 bytes'),
        ('stalled/x.pth', 'timed out'),
    ],
)
def test_a_failed_download_names_the_url_and_leaves_no_file(
    url, server, tmp_path, monkeypatch, name, reason
):
    monkeypatch.setattr(downloading, '_TIMEOUT', 0.5)
    with pytest.raises(CheckpointError, match=f'{server.url}/{name} could not .*{reason}'):
        load(f'{server.url}/{name}')
    assert not list((tmp_path / 'home').rglob('*.p*'))


def test_a_server_that_cannot_be_reached():
    with pytest.raises(CheckpointError, match=r'http://127\.0\.0\.1:9/x\.pth could not'):
        load('http://127.0.0.1:9/x.pth')


def load_in_process(rank, url, folder, homes, local_ranks):
    """Load in one process of two, and save the weights or the error."""
    torch.set_num_threads(1)
    os.environ['TORCH_HOME'] = str(homes[rank])
    os.environ.pop('LOCAL_RANK', None)
    if local_ranks[rank] is not None:
        os.environ['LOCAL_RANK'] = local_ranks[rank]
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    try:
        result = load(url)
    except CheckpointError as error:
        result = str(error)
    torch.save(result, folder / f'result{rank}.pth')
    distributed.barrier()
    os._exit(0)  # Destroying the group can wait for ever for a thread of gloo (torch 2.6).


def load_in_two_processes(url, folder, homes, local_ranks=('0', '1')):
    multiprocessing.spawn(load_in_process, args=(url, folder, homes, local_ranks), nprocs=2)
    return [torch.load(folder / f'result{rank}.pth') for rank in range(2)]


@pytest.mark.parametrize(
    ('shared', 'local_ranks', 'downloads'),
    [
        (True, ('0', '1'), 1),  # one node
        (True, ('0', '0'), 1),  # two nodes with a shared folder
        (False, ('0', '0'), 2),  # two nodes without one
        (False, ('0', '1'), 2),  # one node, but each process has a folder of its own
        (True, (None, None), 1),  # a launcher that does not set LOCAL_RANK
    ],
)
def test_two_processes_download_once_per_folder(
    url, server, tmp_path, shared, local_ranks, downloads
):
    homes = [tmp_path / 'home', tmp_path / ('home' if shared else 'other')]
    results = load_in_two_processes(url, tmp_path, homes, local_ranks)
    assert all(torch.equal(result, WEIGHTS) for result in results)
    assert server.requests == ['/good.pth'] * downloads


def test_a_failure_of_rank_0_is_an_error_in_both_processes(url, server, tmp_path):
    absent = f'{server.url}/absent.pth'
    results = load_in_two_processes(absent, tmp_path, [tmp_path / 'home'] * 2)
    assert server.requests == ['/absent.pth']
    for result in results:
        assert result.startswith(f'{absent} could not be downloaded by rank 0: ')


def test_a_failure_of_another_node_is_an_error_in_both_processes(url, tmp_path):
    (tmp_path / 'file').touch()  # No folder can be made below a file.
    homes = [tmp_path / 'home', tmp_path / 'file']
    for result in load_in_two_processes(url, tmp_path, homes, ('0', '0')):
        assert result.startswith(f'{url} could not be downloaded by rank 1: NotADirectoryError')
