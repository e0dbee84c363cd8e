"""Checks that an image file is complete; they are stricter than the decoders.

OpenCV refuses a PNG with damaged pixels and a truncated JPEG. It decodes, with a warning at most, a
JPEG whose tail is zeros (an interrupted copy) or whose middle was overwritten; Pillow, which reads
mmseg's label maps, decodes many damaged PNGs. What only one of the decoders refuses is left to the
one that the host uses: texts and other additions to a PNG, the number of pixels, a missing end.
"""

import io
import os
import re
import tempfile
import warnings
import zlib
from collections.abc import Callable
from typing import TypeVar

import cv2
from PIL import Image

from .problem import Fault

_FETCH = 'copy or download it again'
_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG'
# Formats that Pillow does not know, or of which it may refuse the header.
_SIGNATURES = {
    _JPEG: 'JPEG',
    _PNG: 'PNG',
    rb'RIFF....WEBP': 'WEBP',
    rb'II\*\0|MM\0\*': 'TIFF',
    rb'....ftyp(hei|hev|mif1|msf1|avi)': 'HEIC or AVIF',
}
_START_OF_SCAN, _END = b'\xff\xda', b'\xff\xd9'
# libjpeg's warning that pixels are missing. Its other warnings also occur for complete pictures.
_LOST_PIXELS = b'premature end of data segment'

_T = TypeVar('_T')


def file_problem(content: bytes) -> Fault | None:
    """Return what is wrong with the content of an image file, without decoding it."""
    if not content:
        return Fault('is empty (0 bytes)', _FETCH)
    if content.startswith(_JPEG) and not _has_end(content):
        return Fault('is cut short, the end of the JPEG is missing', _FETCH)
    if content.startswith(_PNG) and (fault := _png_fault(content)):
        return Fault(f'is cut short or damaged ({fault})', _FETCH)
    return None


def unreadable_reason(content: bytes, error: Exception | None = None) -> Fault:
    """Return why a host failed to load an image in which `file_problem` finds nothing wrong.

    Args:
        content: Content of the file.
        error: What the host raised; None if its decoder returned no image.
    """
    said = f' ({error_text(error)})' if error else ''
    if isinstance(error, Image.DecompressionBombError) or 'CV_IO_MAX_IMAGE' in said:
        return Fault(
            f'has too many pixels for the decoder of the host{said}',
            'cut it into tiles; or set another imdecode_backend in its loading step; or, for '
            'OpenCV, raise the environment variable OPENCV_IO_MAX_IMAGE_PIXELS',
        )
    kind = _kind(content)
    if kind is None:
        return Fault('is not an image', 'replace it')
    is_whole = _can_be_decoded(content)
    return Fault(
        f'cannot be read by the host{said}, though it is a {"whole " if is_whole else ""}{kind}',
        f'{"correct the settings of the loading step or the data set" if is_whole else _FETCH}, or '
        'save it as 8-bit PNG',
    )


def seems_image(file: str) -> bool:
    """Return whether a file begins as OpenCV's formats do, or those of other programs."""
    try:
        with open(file, 'rb') as opened:
            start = opened.read(32)
        return bool(start) and (cv2.haveImageReader(file) or _signature(start) is not None)
    except (OSError, cv2.error):
        return False


def error_text(error: Exception) -> str:
    """Return the type and message of an error, without addresses of objects."""
    message = re.sub(r'<[\w.]+ object at 0x\w+>', 'the file', str(error)).strip()
    return f'{type(error).__name__}: {message}' if message else type(error).__name__


def decode(load: Callable[[], _T]) -> tuple[_T, Fault | None]:
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
    return result, Fault('is damaged, part of the picture is lost', _FETCH) if lost else None


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


def _png_fault(content: bytes) -> str | None:
    """Return what is wrong with the chunks of a PNG that hold its size, colours and pixels."""
    position, name, has_pixels = 8, b'', False
    while position + 8 <= len(content) and name != b'IEND':
        length = int.from_bytes(content[position : position + 4], 'big')
        name, end = content[position + 4 : position + 8], position + 12 + length
        if name[:1].isupper() and name != b'IEND':  # Decoders may ignore all others.
            if end > len(content):
                return f'its chunk {name.decode("latin-1")!r} ends early'
            checksum = int.from_bytes(content[end - 4 : end], 'big')
            if zlib.crc32(memoryview(content)[position + 4 : end - 4]) != checksum:
                return f'the checksum of its chunk {name.decode("latin-1")!r} is wrong'
            has_pixels = has_pixels or name == b'IDAT'
        position = end
    return None if has_pixels else 'it has no pixels'


def _kind(content: bytes) -> str | None:
    """Return the format of an image and, if Pillow reads its header, the mode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            image = Image.open(io.BytesIO(content))
        return f'{image.format} of mode {image.mode}'
    except Exception:  # Pillow does not know the format, or refuses what is in the file.
        return _signature(content)


def _can_be_decoded(content: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            Image.open(io.BytesIO(content)).load()
        return True
    except Exception:  # As in `_kind`, or for what is missing.
        return False


def _signature(content: bytes) -> str | None:
    matches = (kind for start, kind in _SIGNATURES.items() if re.match(start, content, re.DOTALL))
    return next(matches, None)
