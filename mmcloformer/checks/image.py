"""Checks that an image file is complete, which are stricter than the decoders.

OpenCV refuses a PNG with damaged pixels and a truncated JPEG. It decodes, with a warning at most, a
JPEG whose tail is zeros (an interrupted copy) or whose middle was overwritten; Pillow, which reads
mmseg's label maps, decodes many damaged PNGs.
"""

import io
import os
import tempfile
from collections.abc import Callable
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

_FETCH = 'copy or download it again'
_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG'
_START_OF_SCAN, _END = b'\xff\xda', b'\xff\xd9'
# libjpeg's warning that pixels are missing. Its other warnings also occur for complete pictures.
_LOST_PIXELS = b'premature end of data segment'

_T = TypeVar('_T')


def file_problem(content: bytes) -> str | None:
    """Return what is wrong with an image file, without decoding it.

    Args:
        content: The whole file.

    Returns:
        The reason and what to do, or None.
    """
    if not content:
        return f'is empty (0 bytes); {_FETCH}'
    if content.startswith(_JPEG) and not _has_end(content):
        return f'is cut short, the end of the JPEG is missing; {_FETCH}'
    if content.startswith(_PNG):
        try:
            Image.open(io.BytesIO(content), formats=['PNG']).verify()
        except (OSError, SyntaxError) as error:  # Raised for truncated chunks and wrong checksums.
            return f'is cut short or damaged ({error}); {_FETCH}'
    return None


def unreadable_reason(content: bytes, error: Exception) -> str:
    """Return why a host failed to load an image in which `file_problem` finds nothing wrong.

    Args:
        content: The whole file.
        error: What the host raised.
    """
    try:
        kind = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        return 'is not an image; replace it'
    return (
        f'cannot be read by the host ({type(error).__name__}: {str(error).strip()}), though it is '
        f'a {kind.format} of mode {kind.mode}; {_FETCH}, or save it as 8-bit JPEG or PNG'
    )


def decode(load: Callable[[], _T]) -> tuple[_T, str | None]:
    """Run a decoder and capture the warnings of libjpeg, which go to standard error only.

    No other thread may write to standard error meanwhile.

    Args:
        load: Decodes an image.

    Returns:
        What it returned, and the problem if part of the picture is missing, else None.
    """
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            result = load()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        captured.seek(0)
        lost = _LOST_PIXELS in captured.read()
    return result, f'is damaged, part of the picture is lost; {_FETCH}' if lost else None


def _has_end(content: bytes) -> bool:
    """Return whether an end marker follows the scans of a JPEG.

    The end marker of an embedded thumbnail does not count; it precedes the first scan.
    """
    position = 2
    while content[position : position + 1] == b'\xff':
        if content.startswith(_START_OF_SCAN, position):
            break
        padding = content.startswith(b'\xff\xff', position)
        length = int.from_bytes(content[position + 2 : position + 4], 'big')
        position += 1 if padding else 2 + length
    else:
        if position < len(content):  # Not a regular sequence of segments; accept any end marker.
            position = 0
    return content.find(_END, position) >= 0
