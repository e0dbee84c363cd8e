"""Checkpoints from URLs, in one process, in two threads that act as ranks, and in two processes."""

import functools
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import CheckpointLoader, checkpoint

from mmcloformer.checkpoint import downloading
from mmcloformer.checkpoint.downloading import download_once
from mmcloformer.errors import CheckpointError
from tests.processes import run_in_group

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
    assert len([*(tmp_path / 'folder').iterdir()]) == 1


@pytest.mark.parametrize(
    ('first', 'second'),
    [
        ('a/epoch_5.pth', 'b/epoch_5.pth'),
        ('get?run=a&file=epoch_5.pth', 'get?run=b&file=epoch_5.pth'),
        ('epoch_5.pth', 'epoch_5.pth?version=2'),
        ('a/x-0123abcd.pth', 'b/x-0123abcd.pth'),
        ('a/', 'b/'),
    ],
)
def test_urls_that_end_alike_are_different_files(server, tmp_path, first, second):
    contents = {f'/{first}': b'first', f'/{second}': b'second'}
    server.contents = contents
    for _ in range(2):
        for path, content in contents.items():
            assert download_once(server.url + path, tmp_path / 'home').read_bytes() == content
    assert server.requests == [*contents]


def test_a_file_of_the_hosts_is_used_if_it_is_that_of_its_name(server, tmp_path):
    content = b'weights'
    name = f'/x-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    (tmp_path / 'home').mkdir()
    server.contents = {name: content}
    (tmp_path / f'home{name}').write_bytes(b'others')
    assert download_once(server.url + name, tmp_path / 'home').read_bytes() == content
    (tmp_path / f'home{name}').write_bytes(content)
    assert download_once(server.url + name, tmp_path / 'home') == tmp_path / f'home{name}'
    assert server.requests == [name]


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('http://127.0.0.1:9/x.pth', 'refused'),
        ('absent.pth', '404'),
        ('truncated/x.pth', 'ended after 10 of 1000 bytes'),
        ('stalled/x.pth', 'timed out'),
    ],
)
def test_a_failed_download_names_the_url_and_leaves_no_file(
    url, server, tmp_path, monkeypatch, name, reason
):
    monkeypatch.setattr(downloading, '_TIMEOUT', 0.5)
    address = name if '://' in name else f'{server.url}/{name}'
    with pytest.raises(CheckpointError, match=f'{address} could not .*{reason}'):
        load(address)
    assert not list((tmp_path / 'home').rglob('*.p*'))


@pytest.fixture
def load_in_threads(monkeypatch):
    """Load in two threads that take themselves for two ranks, each with its folder."""
    rank, barrier, gathered = threading.local(), threading.Barrier(2, timeout=20), {}

    def gather(value):
        gathered[rank.value] = value
        barrier.wait()
        values = [gathered[0], gathered[1]]
        barrier.wait()
        return values

    def load_as(number, url, homes, local_ranks):
        rank.value, rank.local = number, local_ranks[number]
        try:
            return download_once(url, homes[number]).read_bytes()
        except CheckpointError as error:
            return str(error)

    def get_env(name, default):
        return default if rank.local is None else rank.local

    def run(url, homes, local_ranks=('0', '1')):
        load = functools.partial(load_as, url=url, homes=homes, local_ranks=local_ranks)
        with ThreadPoolExecutor(2) as pool:
            return [*pool.map(load, range(2))]

    environ = SimpleNamespace(environ=SimpleNamespace(get=get_env), path=os.path)
    monkeypatch.setattr(downloading, 'os', environ)
    monkeypatch.setattr(downloading, 'get_rank', lambda: rank.value)
    monkeypatch.setattr(downloading, 'all_gather_object', gather)
    return run


def load_in_process(rank, url, folder):
    """Load in one process of two, and save the weights or the error."""
    os.environ['LOCAL_RANK'] = str(rank)
    try:
        result = download_once(url, folder / 'home').read_bytes()
    except CheckpointError as error:
        result = str(error)
    torch.save(result, folder / f'result{rank}.pth')


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
def test_ranks_download_once_per_folder(
    load_in_threads, url, server, tmp_path, shared, local_ranks, downloads
):
    homes = [tmp_path / 'home', tmp_path / ('home' if shared else 'other')]
    results = load_in_threads(url, homes, local_ranks)
    assert results == [(tmp_path / 'good.pth').read_bytes()] * 2
    assert server.requests == ['/good.pth'] * downloads


def test_a_failure_of_one_rank_is_an_error_in_both(load_in_threads, url, server, tmp_path):
    absent = f'{server.url}/absent.pth'
    for result in load_in_threads(absent, [tmp_path / 'home'] * 2):
        assert result.startswith(f'{absent} could not be downloaded by rank 0: ')
    assert server.requests == ['/absent.pth']
    (tmp_path / 'file').touch()  # No folder can be made below a file.
    homes = [tmp_path / 'home', tmp_path / 'file' / 'home']
    for result in load_in_threads(url, homes, ('0', '0')):
        assert result.startswith(f'{url} could not be downloaded by rank 1: NotADirectoryError')


@pytest.mark.slow
def test_two_processes_download_once(url, server, tmp_path):
    absent = f'{server.url}/absent.pth'
    found = []
    for number, name in enumerate([url, absent]):
        run_in_group(load_in_process, tmp_path / f'store{number}', name, tmp_path)
        found += [torch.load(tmp_path / f'result{rank}.pth') for rank in range(2)]
    assert found[:2] == [(tmp_path / 'good.pth').read_bytes()] * 2
    for message in found[2:]:
        assert message.startswith(f'{absent} could not be downloaded by rank 0: ')
    assert server.requests == ['/good.pth', '/absent.pth']
