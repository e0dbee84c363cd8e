"""Encodings of the text files that hold annotations.

The hosts read them as UTF-8. A byte-order mark stays in the text, where JSON does not allow it, and
where it becomes a part of the first name.
"""

import codecs
import shlex

_WIDE = {
    codecs.BOM_UTF32_LE: 'UTF-32',  # Before UTF-16, with which it begins.
    codecs.BOM_UTF32_BE: 'UTF-32',
    codecs.BOM_UTF16_LE: 'UTF-16',
    codecs.BOM_UTF16_BE: 'UTF-16',
}


def mark_problem(start: bytes, file: str) -> str | None:
    """Return why a host cannot read a text file that has a byte-order mark, and what to do.

    Args:
        start: The first four bytes of the file, or more.
        file: Name of the file.
    """
    name = shlex.quote(file)
    if start.startswith(codecs.BOM_UTF8):
        return (
            'begins with a byte-order mark, which the host takes for text; save it as UTF-8 '
            rf"without one: sed -i '1s/^\xEF\xBB\xBF//' {name}"
        )
    if encoding := _wide_encoding(start):
        return (
            f'is {encoding}, which the host cannot read; save it as UTF-8: '
            f'iconv -f {encoding} -t UTF-8 {name} > NEW'
        )
    return None


def decode_text(content: bytes, file: str) -> str:
    """Decode a text file; one with a byte-order mark is decoded as that says.

    Args:
        content: Content of the file.
        file: Name of the file.

    Raises:
        ValueError: If it cannot be decoded; the message says how to convert it.
    """
    try:
        return content.decode(_wide_encoding(content) or 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(
            f'it is not UTF-8 ({error}); convert it: '
            f'iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(file)} > NEW, if it is from Windows'
        ) from error


def _wide_encoding(start: bytes) -> str | None:
    return next((name for mark, name in _WIDE.items() if start.startswith(mark)), None)
