"""Checks that numbers and names of classes agree: model, data sets, class folders, evaluators.

The hosts match classes by position. Where two lists differ they crash at the first batch or the
first evaluation, or train and report results under wrong names.
"""

from collections.abc import Iterator, Mapping, Sequence
from os.path import expanduser, isdir, join
from typing import Any, NamedTuple

from mmengine import fileio
from mmengine.dataset import BaseDataset

from ..config import ConfigView, Entry
from ..errors import join_first
from .heads import head_numbers, host_numbers, number_problems, topk_problems
from .problem import Problem


class Folders(NamedTuple):
    """Class folders of mmpretrain's `CustomDataset`, which numbers them in sorted order.

    Attributes:
        root: Folder that holds them.
        names: Their names by label, without hidden ones.
        filled: Those with images.
        hidden: Hidden folders, which the host takes for classes too.
    """

    root: str
    names: tuple[str, ...]
    filled: frozenset[str]
    hidden: tuple[str, ...]

    def misnamed(self, names: Sequence[Any]) -> int | None:
        """Return the first label for which `names` has the name of another folder, or None."""
        known = [folder.casefold() for folder in self.names]
        given = [str(name).casefold() for name in names[: len(known)]]
        return next((i for i, n in enumerate(given) if n != known[i] and n in known), None)


class Classes(NamedTuple):
    """Classes of a data set, not of a wrapper.

    Attributes:
        field: Name of the field with the data set's config.
        kind: Class of the data set.
        names: Class names by label, those of folders first; None if the annotations give them.
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
        return len(self.names) if self.names else None


def class_problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield the fields whose number or names of classes disagree, with what to set them to.

    The model is compared with the training set, or with the others if that is not checked; the
    others are compared with the training set. Classes that only annotations give are not compared.

    Args:
        view: The config.
        splits: Which of `train`, `val` and `test` to check.
    """
    if view.host == 'mmpretrain':
        from mmpretrain.models import BaseRetriever

        if view.entry(view.cfg.get('model'), 'model', 'MODELS').is_a(BaseRetriever):
            return  # Each split has labels of its own.
    if view.host is None:
        return
    trained = None
    for split in dict.fromkeys(['train', *splits]):
        for leaf in view.datasets(split):
            problems, found = _read_classes(view, leaf.entry)
            if split in splits:
                yield from problems
            if found is None or found.number is None:
                continue
            if split == 'train' and trained is None:
                trained = found
            elif split in splits and trained and _comparable(view, splits, trained):
                yield from _differences(view, found, trained, is_scored=split != 'train')
            # If they list the same classes, only the checkpoint can differ.
            elif (
                split in splits and split != 'train' and found.names != (trained and trained.names)
            ):
                yield from _narrow_problems(view, found)
    if 'train' in splits:
        yield from _model_problems(view, splits, trained)
    elif view.host == 'mmpretrain' and (head := next(host_numbers(view), None)):
        yield from topk_problems(view, splits, head.classes, f'{head.field} is {head.found}')


def _read_classes(view: ConfigView, dataset: Entry) -> tuple[list[Problem], Classes | None]:
    """Return problems of a data set's own classes, and the classes; None if they are unknown."""
    field, settings, kind = dataset
    metainfo = settings.get('metainfo') or {}
    if not dataset.is_a(BaseDataset) or not isinstance(metainfo, Mapping):
        return [], None
    classifier = view.host == 'mmpretrain'
    given = dict(metainfo)
    source = f'{field}.metainfo.classes'
    unread = [key for key in given if key.lower() == 'classes']
    if unread and 'classes' not in given:
        where = f'{field}.metainfo.{unread[0]}'
        return [Problem(where, 'the host does not read it', f'write {source}')], None
    if classifier and 'classes' not in given and settings.get('classes') is not None:
        source, names = f'{field}.classes', settings['classes']
        given['classes'] = expanduser(names) if isinstance(names, str) else names
    built = view.build_lazily(dataset, with_names=True)
    try:
        loaded = kind._load_metainfo(given) if built is None else built.metainfo
    except (OSError, ValueError):  # For example a folder instead of a file of names.
        loaded = given
    names = loaded.get('classes')
    if names is not None and not isinstance(names, (list, tuple)):
        found = f'is {names!r}, which is neither a tuple of names nor a file of names'
        named = tuple(names) if isinstance(names, (Mapping, set)) else (names,)
        return [Problem(source, found, f'write a tuple of names, such as {named}')], None
    own, things = 'classes' in given, len(loaded.get('thing_classes', names or ()))
    classes = Classes(field, kind, None if names is None else tuple(names), own, things, None)
    if not classifier or not (folders := _find_folders(view, dataset)):
        return [*_selection_problems(view, classes, is_refused=built is None)], classes
    problems = [*_folder_problems(classes, folders, source)]
    return problems, classes._replace(names=folders.names or classes.names, folders=folders)


def _find_folders(view: ConfigView, dataset: Entry) -> Folders | None:
    """Return the class folders of a data set, or None if its labels come from elsewhere."""
    from mmpretrain.datasets import CustomDataset, custom

    methods = ('load_data_list', '_find_samples')
    if not dataset.is_a(CustomDataset):
        return None
    if any(getattr(dataset.kind, name) is not getattr(CustomDataset, name) for name in methods):
        return None
    built: Any = view.build_lazily(dataset)
    if built is None or built.ann_file or not built.with_label or not isdir(built.img_prefix):
        return None
    root = built.img_prefix
    names, _ = custom.find_folders(root)
    shown = tuple(name for name in names if not name.startswith('.'))
    hidden = tuple(name for name in names if name.startswith('.'))
    filled = [
        name
        for name in shown
        if any(
            map(
                built.is_valid_file,
                fileio.list_dir_or_file(join(root, name), list_dir=False, recursive=True),
            )
        )
    ]
    return Folders(root, shown, frozenset(filled), hidden) if names else None


def _folder_problems(classes: Classes, folders: Folders, source: str) -> Iterator[Problem]:
    """Yield hidden class folders, and how the names in the config differ from the folders."""
    for name in folders.hidden:  # Such as .ipynb_checkpoints.
        yield Problem(
            classes.field,
            'a hidden folder, which the host takes for a class; that changes the labels of the '
            'others',
            'remove it',
            join(folders.root, name),
        )
    names, count = classes.names, len(folders.names)
    if names is None or not count:
        return
    advice = str(folders.names) if 1 < count <= 10 else 'one name per folder, in sorted order'
    if len(names) != count:
        given = 'has' if classes.own else f'is not set, so the type {classes.kind.__name__} gives'
        found = (
            f'{given} {len(names)} names, but {folders.root} has {count} class folders '
            f'({join_first(folders.names)})'
        )
        yield Problem(source, found, f'set it to {advice}')
    elif classes.own and (label := folders.misnamed(names)) is not None:
        found = (
            f'gives the folder {folders.names[label]} of {folders.root} the name {names[label]}: '
            'the host numbers folders in sorted order'
        )
        yield Problem(source, found, f'set it to {advice}')


def _selection_problems(view: ConfigView, classes: Classes, is_refused: bool) -> Iterator[Problem]:
    """Yield why mmseg cannot select these classes, or refuses them."""
    names, field, kind = classes.names, classes.field, classes.kind
    if view.host != 'mmseg' or not names:
        return
    fixed = kind.METAINFO.get('classes')
    if is_refused and (foreign := [name for name in names if fixed and name not in fixed]):
        yield Problem(
            f'{field}.type',
            f'is {kind.__name__}, which takes only a selection of its own {len(fixed)} classes, '
            f'but {field}.metainfo.classes has {join_first(foreign)}',
            "set the type to 'BaseSegDataset', with img_suffix, seg_map_suffix and "
            'reduce_zero_label as your files need them',
        )
    if len(names) == 1 and any(host_numbers(view)):
        yield Problem(
            f'{field}.metainfo.classes',
            f'has only {names[0]}, but a segmentor predicts one of at least two classes, the '
            'first of which has the label 0',
            'select two or more' if fixed else f'write {("background", names[0])}',
        )


def _differences(
    view: ConfigView, found: Classes, trained: Classes, is_scored: bool
) -> Iterator[Problem]:
    """Compare the labels of a data set with those of the first training set."""
    if found.folders and trained.folders:
        yield from _shift_problems(found.folders, trained.folders, found.field)
        return
    for one, other in ((found, trained), (trained, found)):
        if one.folders and other.own and other.names:
            label = one.folders.misnamed(other.names)
            if label is not None:
                yield Problem(
                    other.field,
                    f'calls the label {label} {other.names[label]}, but the folders in '
                    f'{one.folders.root} ({one.field}) are numbered in sorted order, and there it '
                    f'is {one.folders.names[label]}',
                    'sort the classes',
                )
            return
    names, wanted = found.names or (), trained.names or ()
    classifier = view.host == 'mmpretrain'
    if classifier and not (found.own and trained.own):
        return
    if len(names) == len(wanted) == 1:  # The only class may be renamed.
        return
    common = min(len(names), len(wanted))
    # Labels of a list do not depend on the number of names.
    short = is_scored and len(names) < len(wanted) and not classifier
    if names[:common] != wanted[:common] or short:
        yield Problem(
            f'{found.field}.metainfo.classes',
            f'is ({join_first(names)}), but {trained.field} has ({join_first(wanted)}), and '
            'classes are matched by position',
            'set it to these',
        )


def _shift_problems(folders: Folders, trained: Folders, field: str) -> Iterator[Problem]:
    """Yield that a class has another label in the training set.

    Empty folders that change no label do no harm.
    """
    labels = {name: label for label, name in enumerate(trained.names)}
    shifted = [
        (label, name)
        for label, name in enumerate(folders.names)
        if name in folders.filled and labels.get(name) != label
    ]
    if shifted:
        label, name = shifted[0]
        only = [
            f'only in {one.root}: {join_first(names)}'
            for one, other in ((folders, trained), (trained, folders))
            if (names := [each for each in one.names if each not in other.names])
        ]
        yield Problem(
            field,
            f'{folders.root} holds other class folders than {trained.root}. Labels are positions '
            f'in sorted order, so {name} has the label {label} there and '
            f'{labels.get(name, "no label")} in training. {"; ".join(only)}',
            'rename or remove these, or add an empty folder where one has no images',
        )


def _model_problems(
    view: ConfigView, splits: Sequence[str], trained: Classes | None
) -> Iterator[Problem]:
    """Compare the heads with the training set or, if its classes are unknown, with each other."""
    if trained and _labels_are_listed(view, trained):
        trained = None
    count = trained and trained.number
    if not trained or not count:
        first = next(host_numbers(view), None)
        if first and view.host != 'mmdet':
            reason = f'{first.field} is {first.found}'
            yield from number_problems(view, splits, [first.classes], reason)
        return
    folders = trained.folders
    names = join_first(trained.names or (), 4)
    of_type = '' if trained.own or folders else f' of its type {trained.kind.__name__}'
    reason = f'{trained.field} has {count} class{"es" * (count > 1)}{of_type} ({names})'
    if view.host == 'mmseg':
        count = max(count, 2)  # The background is to be named too.
    # Panoptic data sets have more classes than the heads for boxes and masks.
    allowed = [count, count if folders else trained.things]
    if folders and not folders.hidden:
        # Empty folders at the end of the list change no label.
        filled = [i for i, name in enumerate(folders.names) if name in folders.filled]
        allowed += range(max(filled, default=count) + 1, count)
    yield from number_problems(view, splits, allowed, reason)


def _narrow_problems(view: ConfigView, found: Classes) -> Iterator[Problem]:
    """Check that a data set has at least the classes of each head."""
    count = found.number or 0
    for field, number, classes, severity in head_numbers(view):
        if view.host == 'mmpretrain':
            # Labels of a list, unlike those of folders, do not depend on the number of names.
            wrong = found.folders is not None and count != classes
        else:
            wrong = count < classes
        if wrong:
            yield Problem(
                found.field,
                f'has {count} classes, but {field} is {number}',
                'give it the classes that the model was trained on, in the same order',
                severity=severity,
            )


def _comparable(view: ConfigView, splits: Sequence[str], trained: Classes) -> bool:
    """Return whether the labels of the training set follow from its names or folders."""
    if _labels_are_listed(view, trained):
        return False
    if not any(head_numbers(view)):
        return False
    # A config that is only tested may name a training set of other classes.
    numbers = {number.classes for number in host_numbers(view)}
    return 'train' in splits or numbers <= {trained.number, trained.things}


def _labels_are_listed(view: ConfigView, trained: Classes) -> bool:
    """Return whether a list gives the labels, independently of the names of the class."""
    return view.host == 'mmpretrain' and not (trained.own or trained.folders)
