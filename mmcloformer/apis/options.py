"""Parsing the values of `--cfg-options`."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction

from ..errors import ConfigError

# A quote opens at the start of an element and closes before a comma, a bracket or the end; other
# quotes are apostrophes.
_QUOTED = re.compile(r"""((?:^|[,(\[])\s*)('.*?'|".*?")(?=\s*(?:[,)\]]|$))""")
_GROUP = re.compile(r'\([^()\[\]]*\)|\[[^()\[\]]*\]')  # the innermost brackets


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
    for argument in arguments:
        key, equals, value = argument.partition('=')
        if not equals or not key.strip():
            raise ConfigError(
                f'--cfg-options: {argument!r} is not of the form key=value. If it belongs to the '
                'option before it, put quotes around both. Other arguments of the tool go before '
                '--cfg-options'
            )
        options[key.strip()] = parse_value(value)
    return options


def parse_value(text: str) -> Any:
    """Parse a value as mmengine does, but keep spaces in strings, and commas inside quotes.

    Args:
        text: The value as typed. Quotes around all of it protect its commas and spaces, unless
            they enclose a list or tuple in brackets; so do quotes around an element of a list.

    Raises:
        ConfigError: If brackets of a list are unbalanced.
    """
    whole = _Value(text.strip().strip('\'"'))
    if whole.text in whole.groups:
        return whole.parse(whole.text)
    value = _Value(text.strip())
    if ',' in text and re.search(r'[()\[\]]', value.text):
        raise ConfigError(
            f'--cfg-options: brackets are not balanced in {text}. Close them, or put a text with '
            f'commas into quotes inside those of the shell: "key=\'a), b\'"'
        )
    return value.parse_all(value.text) if ',' in value.text else value.parse(value.text)


class _Value:
    """A value with a single character in place of each quoted string and pair of brackets."""

    def __init__(self, text: str) -> None:
        self.quoted: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.text = _QUOTED.sub(lambda m: m[1] + self._keep(self.quoted, m[2]), text)
        while _GROUP.search(self.text):
            self.text = _GROUP.sub(lambda m: self._keep(self.groups, m[0]), self.text)

    def _keep(self, kept: dict[str, str], text: str) -> str:
        char = chr(0xE000 + len(self.quoted) + len(self.groups))  # for private use in Unicode
        kept[char] = text
        return char

    def parse(self, text: str) -> Any:
        """Parse an element."""
        text = text.strip()
        if group := self.groups.get(text):
            elements = self.parse_all(group[1:-1])
            return tuple(elements) if group[0] == '(' else elements
        if text not in self.quoted:
            return DictAction._parse_int_float_bool(self._restore(text))
        text = self.quoted[text][1:-1]
        inner = _QUOTED.fullmatch(text)  # quotes inside of quotes
        return DictAction._parse_int_float_bool(inner[2][1:-1] if inner and not inner[1] else text)

    def parse_all(self, text: str) -> list[Any]:
        """Parse the elements between commas; nothing follows a last comma."""
        parts = text.split(',')
        return [self.parse(part) for part in (parts if parts[-1].strip() else parts[:-1])]

    def _restore(self, text: str) -> str:
        kept = self.quoted | self.groups
        return ''.join(self._restore(kept[char]) if char in kept else char for char in text)
