"""Reads the class names of a data set's config as its host does, and checks each list by itself."""

from collections.abc import Iterator, Mapping
from inspect import signature
from os.path import expanduser
from typing import Any, NamedTuple

from mmengine.dataset import BaseDataset

from ..config import ConfigView, Entry
from ..errors import join_first
from .folders import Folders, find_folders, hidden_problems, misnamed
from .heads import head_numbers
from .problem import Problem


class Classes(NamedTuple):
    """Classes of a data set, not of a wrapper.

    Attributes:
        field: Name of the field with the data set's config.
        kind: Class of the data set.
        names: Class names by label, or None if the annotations give them.
        own: Whether the names come from the config rather than from the data set's class.
        things: Number of classes with boxes.
        folders: Class folders, if the labels come from them.
    """

    field: str
    kind: type[BaseDataset]
    names: tuple[str, ...] | None
    own: bool
    things: int
    folders: Folders | None

    @property
    def number(self) -> int | None:
        """Number of classes, or None if it is unknown."""
        if self.folders and self.folders.names:
            return len(self.folders.names)
        return len(self.names) if self.names else None


def read_classes(view: ConfigView, dataset: Entry) -> tuple[list[Problem], Classes | None]:
    """Read the classes of a data set.

    Args:
        view: The config.
        dataset: The data set, not a wrapper.

    Returns:
        Problems of the list of names, and the classes; None if a data set lists them in a way of
        its own.
    """
    if not dataset.is_a(BaseDataset):
        return [], None
    field, settings, kind = dataset
    classifier = view.host == 'mmpretrain'
    metainfo = settings.get('metainfo') or {}
    if not isinstance(metainfo, Mapping):
        advice = 'write dict(classes=(...))'
        return [Problem(f'{field}.metainfo', f'is {metainfo!r}', advice)], None
    given = dict(metainfo)
    source = f'{field}.metainfo.classes'
    for key in given:
        if key.lower() == 'classes' and 'classes' not in given:
            unread = Problem(
                f'{field}.metainfo.{key}', 'the host does not read it', f'write {source}'
            )
            return [unread], None
    if classifier and 'classes' not in given and settings.get('classes') is not None:
        source, given['classes'] = f'{field}.classes', settings['classes']
        if isinstance(given['classes'], str):
            given['classes'] = expanduser(given['classes'])
    try:
        metainfo = kind._load_metainfo(given)
    except (OSError, ValueError):  # For example a folder instead of a file of names.
        metainfo = given
    names = metainfo.get('classes')
    if isinstance(names, str):
        advice = 'put it there' if '/' in names else f'write a tuple: ({names!r},)'
        return [Problem(source, f'is the string {names!r}, and no file of names', advice)], None
    if names is not None and not isinstance(names, (list, tuple)):
        return [Problem(source, f'is {names}', 'write a tuple of names')], None
    folders = find_folders(view, dataset) if classifier else None
    classes = Classes(
        field,
        kind,
        None if names is None else tuple(names),
        'classes' in given,
        len(metainfo.get('thing_classes', names or ())),
        folders,
    )
    problems: list[Problem] = []
    if view.host == 'mmseg' and names:
        problems += _selection_problems(classes, metainfo, bool([*head_numbers(view)]))
    if folders:
        problems += _folder_problems(classes, folders, source)
    return problems, classes


def _selection_problems(
    classes: Classes, metainfo: Mapping[str, Any], has_heads: bool
) -> Iterator[Problem]:
    """Yield why mmseg cannot select these classes from those of the data set's class."""
    from mmseg.datasets import BaseSegDataset

    names, field, kind = classes.names or (), classes.field, classes.kind
    fixed = kind.METAINFO.get('classes')
    palette = metainfo.get('palette') or ()
    selected = fixed is not None and list(names) != list(fixed) and len(palette) >= len(names)
    if foreign := [name for name in names if fixed and name not in fixed]:
        defaults = signature(BaseSegDataset).parameters
        differing = [
            f'{key}={parameter.default!r}'
            for key, parameter in signature(kind).parameters.items()
            if key in defaults and parameter.default != defaults[key].default
        ]
        also = f', with {", ".join(differing)} if your files are like its files' * bool(differing)
        yield Problem(
            f'{field}.type',
            f'is {kind.__name__}, which takes only a selection of its own {len(fixed)} classes, '
            f'but {field}.metainfo.classes has {join_first(foreign)}',
            f"set the type to 'BaseSegDataset'{also}",
        )
    elif len(palette) not in (0, len(names)) and not selected:
        yield Problem(
            f'{field}.metainfo.palette',
            f'has {len(palette)} colours, but there are {len(names)} classes',
            'give one colour per class, or leave it out',
        )
    if len(names) == 1 and has_heads:
        advice = 'select two or more' if fixed else f'write {("background", names[0])}'
        yield Problem(
            f'{field}.metainfo.classes',
            f'has only {names[0]}, but a segmentor predicts one of at least two classes, the '
            'first of which has the label 0',
            advice,
        )


def _folder_problems(classes: Classes, folders: Folders, source: str) -> Iterator[Problem]:
    """Yield how the names in the config differ from the class folders."""
    yield from hidden_problems(folders, classes.field)
    names, count = classes.names, len(folders.names)
    if names is None or not folders.names:
        return
    advice = str(folders.names) if 1 < count <= 10 else 'one name per folder, in sorted order'
    if len(names) != count:
        given = 'has' if classes.own else f'is not set, so the type {classes.kind.__name__} gives'
        yield Problem(
            source,
            f'{given} {len(names)} names, but {folders.root} has {count} class folders '
            f'({join_first(folders.names)})',
            f'set it to {advice}',
        )
    elif classes.own and (label := misnamed(names, folders)) is not None:
        yield Problem(
            source,
            f'gives the folder {folders.names[label]} of {folders.root} the name {names[label]}: '
            'the host numbers folders in sorted order',
            f'set it to {advice}',
        )
