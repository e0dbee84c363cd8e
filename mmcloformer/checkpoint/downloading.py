"""Downloading a checkpoint once, also in a job of several processes."""

import hashlib
import os
import re
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
        folder: Folder of downloaded files; by default that of `torch.hub`.

    Returns:
        The file, which is complete.

    Raises:
        CheckpointError: If a process cannot download it; names the URL.
    """
    path = find_place(url, Path(folder or Path(torch.hub.get_dir(), 'checkpoints')))
    # Launchers that do not set LOCAL_RANK do not tell the processes of a node apart.
    for is_downloading in (get_rank() == 0, os.environ.get('LOCAL_RANK', '0') == '0', True):
        problem = _try_download(url, path) if is_downloading and not path.is_file() else ''
        # This is also the barrier; every process takes part in all three.
        for rank, found in enumerate(all_gather_object(problem)):
            if found:
                raise CheckpointError(f'{url} could not be downloaded by rank {rank}: {found}')
    return path


def find_place(url: str, folder: Path) -> Path:
    """Return the file for a URL in a folder of downloaded files.

    Args:
        url: The URL. Its name in the folder depends on all of it, as URLs of several runs may end
            alike. A file that the hosts downloaded is used if its name has the start of its
            SHA-256, by the convention of `torch.hub` (`NAME-0676ba61.pth`).
        folder: The folder.
    """
    name = Path(urlparse(url).path).name
    by_host = folder / name
    digest = re.search(r'-([0-9a-f]{8,})\.\w+$', name)
    if digest and by_host.is_file():
        with by_host.open('rb') as file:
            content = hashlib.sha256()
            while chunk := file.read(1 << 20):
                content.update(chunk)
        if content.hexdigest().startswith(digest[1]):
            return by_host
    stem, suffix = os.path.splitext(name)
    return folder / f'{stem[:100]}-{hashlib.sha256(url.encode()).hexdigest()[:16]}{suffix[:20]}'


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
