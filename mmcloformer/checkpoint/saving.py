"""Writing files completely or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, partial: Path | None = None) -> None:
    """Write a file that appears under its name only when it is complete on disk.

    Args:
        path: The file, replaced if it exists.
        content: Everything it is to hold.
        partial: The file that is written and then renamed; by default `path` with `.part`.

    Raises:
        OSError: If it cannot be written; a file of that name is left as it was.
    """
    partial = partial or path.with_name(f'{path.name}.part')
    try:
        with partial.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
