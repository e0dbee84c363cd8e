"""Downloading a checkpoint once, also in a job of several processes."""

import os
import shutil
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import Request, urlopen
from uuid import uuid4

import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.logging import print_log

from ..errors import CheckpointError

# Seconds without any data after which a download fails.
_TIMEOUT = 60


def download_once(url: str, folder: str | Path | None = None) -> Path:
    """Download a file unless it was downloaded before.

    In a distributed job every process must call this. Rank 0 downloads, then local rank 0 of each
    node that does not see the file, then any other process that does not; the others wait. A
    failure of one process is raised in all of them.

    Args:
        url: An `http://` or `https://` URL.
        folder: Folder of downloaded files; by default that of `torch.hub`, so files downloaded by
            the hosts are found too.

    Returns:
        The file, which is complete.

    Raises:
        CheckpointError: If a process cannot download it; names the URL.
    """
    name = Path(urlparse(url).path).name
    path = Path(folder or Path(torch.hub.get_dir(), 'checkpoints'), name)
    # Launchers that do not set LOCAL_RANK do not tell the processes of a node apart.
    for is_downloading in (get_rank() == 0, os.environ.get('LOCAL_RANK', '0') == '0', True):
        problem = _try_download(url, path) if is_downloading and not path.is_file() else ''
        # This is also the barrier; every process takes part in all three.
        for rank, found in enumerate(all_gather_object(problem)):
            if found:
                raise CheckpointError(f'{url} could not be downloaded by rank {rank}: {found}')
    return path


def _try_download(url: str, path: Path) -> str:
    """Download a file; return the reason if that fails, else an empty string."""
    print_log(f'Downloading {url} to {path}', logger='current')
    try:
        _download(url, path)
    except Exception as error:  # Whatever it is, the other processes must not wait forever.
        return f'{type(error).__name__}: {error}'
    return ''


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.{uuid4().hex}.part')
    request = Request(url, headers={'User-Agent': 'mmcloformer'})
    try:
        with urlopen(request, timeout=_TIMEOUT) as response, partial.open('wb') as file:
            shutil.copyfileobj(response, file)
            size = response.headers.get('Content-Length')
        # Python does not report a connection that ends early.
        received = partial.stat().st_size
        if size is not None and received != int(size):
            raise OSError(f'the connection ended after {received} of {size} bytes')
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
