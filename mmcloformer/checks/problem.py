"""What a check finds, as data, and the one place that turns it into text."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ..errors import join_first

Severity = Literal['error', 'warning']


class Fault(NamedTuple):
    """What is wrong with a file, without the field of the config that names it.

    Attributes:
        found: What was found.
        remedy: What to do.
    """

    found: str
    remedy: str

    def __str__(self) -> str:
        return f'{self.found}; {self.remedy}'


class Problem(NamedTuple):
    """A finding about a config or its data.

    Attributes:
        field: Field of the config that it is about, such as `train_dataloader.dataset`.
        found: What was found there.
        remedy: What to set or to do.
        file: File that it is about, if any.
        severity: `error` if the host fails or gives wrong results, `warning` if it may be intended.
    """

    field: str
    found: str
    remedy: str
    file: str = ''
    severity: Severity = 'error'


def render(problems: Iterable[Problem]) -> list[str]:
    """Return one line per finding; equal findings in several files are one line.

    Args:
        problems: The findings, in the order of the lines.
    """
    files: dict[Problem, list[str]] = {}
    for each in problems:
        files.setdefault(each._replace(file=''), []).append(each.file)
    lines = []
    for problem, names in files.items():
        names = [*dict.fromkeys(name for name in names if name)]
        where = f'{names[0]} ({problem.field})' if names else problem.field
        if len(names) > 1:
            where = f'{len(names)} files ({problem.field}): {join_first(names)}'
        text = f'{where}: {problem.found}'
        lines.append(f'{text}; {problem.remedy}' if problem.remedy else text)
    return lines
