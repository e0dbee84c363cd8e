"""Parsing the values of `--cfg-options`."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import DictAction

from ..errors import ConfigError

_CLOSING = {'(': ')', '[': ']'}
_QUOTES = '\'"'


class OptionsAction(DictAction):
    """mmengine's `DictAction`, which keeps strings as they were typed.

    mmengine deletes all spaces, and splits at commas inside quotes. Everything else is parsed as
    there: numbers, `True`, `False` and `None`; lists as `1,2` or `[1,2]`; tuples as `(1,2)`.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the options to those given before.

        Raises:
            ConfigError: If one is not of the form key=value or has unbalanced brackets.
        """
        options = dict(getattr(namespace, self.dest, None) or {})
        options |= parse_options(values or [])
        setattr(namespace, self.dest, options)


def parse_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` arguments.

    Args:
        arguments: The arguments after `--cfg-options`.

    Returns:
        Values by key, dots included.

    Raises:
        ConfigError: If one is not of the form key=value or has unbalanced brackets.
    """
    options = {}
    for index, argument in enumerate(arguments):
        key, equals, value = argument.partition('=')
        if not equals or not key.strip():
            raise ConfigError(_no_key(arguments, index))
        options[key.strip()] = parse_value(value, argument)
    return options


def parse_value(text: str, argument: str | None = None) -> Any:
    """Parse a value as mmengine does, but keep spaces in strings, and commas inside quotes.

    Args:
        text: The value as typed. Quotes around all of it protect its commas and spaces, unless
            they enclose a list or tuple in brackets; so do quotes around an element of a list.
        argument: The whole argument, for messages.

    Raises:
        ConfigError: If brackets of a list are unbalanced.
    """
    text = text.strip()
    if _is_bracketed(inner := text.strip(_QUOTES)):
        return _parse_element(inner, argument or text)
    while len(text) > 1 and _quote_end(text, 0) == len(text) - 1:
        text = text[1:-1]
        if _quote_end(text, 0) != len(text) - 1:
            return DictAction._parse_int_float_bool(text)
    if ',' in text:
        parts = _split(text, argument or text)
        if parts != [text]:
            return [_parse_element(part, argument or text) for part in parts]
    return DictAction._parse_int_float_bool(text)


def _parse_element(text: str, argument: str) -> Any:
    text = text.strip()
    if len(text) > 1 and _quote_end(text, 0) == len(text) - 1:
        text = text[1:-1]
    elif _is_bracketed(text):
        elements = [_parse_element(part, argument) for part in _split(text[1:-1], argument)]
        return tuple(elements) if text[0] == '(' else elements
    return DictAction._parse_int_float_bool(text)


def _split(text: str, argument: str) -> list[str]:
    """Split at the commas outside of brackets and quotes; nothing follows a last comma."""
    parts, start, depth = [], 0, 0
    for index, char, depth in _structure(text):
        if depth < 0:
            break
        if char == ',' and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    if depth:
        raise ConfigError(
            f'--cfg-options {argument}: the brackets are not balanced. Close them, or put a text '
            f'with commas into quotes inside those of the shell: "key=\'a), b\'"'
        )
    return [*parts, text[start:]] if text[start:].strip() else parts


def _structure(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield index, character and depth of the commas and brackets outside of quotes.

    The depth is the number of open brackets after the character. It is -1 after a closing bracket
    that does not match, and nothing follows.
    """
    open_brackets: list[str] = []
    index = 0
    at_start = True  # Quotes count only at the start of an element; others are apostrophes.
    while index < len(text):
        char = text[index]
        if at_start and (end := _quote_end(text, index)) is not None:
            index = end
        elif char in _CLOSING:
            open_brackets.append(_CLOSING[char])
            yield index, char, len(open_brackets)
        elif char in _CLOSING.values():
            if not open_brackets or open_brackets.pop() != char:
                yield index, char, -1
                return
            yield index, char, len(open_brackets)
        elif char == ',':
            yield index, char, len(open_brackets)
        at_start = char in ',([' or (at_start and char.isspace())
        index += 1


def _quote_end(text: str, start: int) -> int | None:
    """Return where the quote that opens at an index closes: before a comma, bracket or the end."""
    if text[start : start + 1] not in tuple(_QUOTES):
        return None
    for index in range(start + 1, len(text)):
        following = text[index + 1 :].lstrip()
        if text[index] == text[start] and (not following or following[0] in ',)]'):
            return index
    return None


def _is_bracketed(text: str) -> bool:
    """Return whether the first character is a bracket that the last one closes."""
    if len(text) < 2 or text[0] not in _CLOSING:
        return False
    closed = ((index, depth) for index, _, depth in _structure(text) if depth <= 0)
    return next(closed, None) == (len(text) - 1, 0)


def _no_key(arguments: Sequence[str], index: int) -> str:
    message = f'--cfg-options: {arguments[index]!r} is not of the form key=value'
    if index:
        end = index
        while end < len(arguments) and '=' not in arguments[end]:
            end += 1
        whole = ' '.join(arguments[index - 1 : end])
        message += f'. If it belongs to the option before it, put quotes around both: "{whole}"'
    return f'{message}. Other arguments of the tool go before --cfg-options'
