"""Checks that numbers and names of classes agree: model, data sets, folders, evaluators.

The hosts match classes by position. Where two lists differ they crash at the first batch or the
first evaluation, or train and report results under wrong names.
"""

from collections.abc import Iterator, Sequence

from ..config import ConfigView
from ..errors import join_first
from .class_names import Classes, read_classes
from .folders import misnamed, shift_problem
from .heads import head_numbers, number_problems, topk_problems
from .problem import Problem


def class_problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    """Yield the fields whose number or names of classes disagree, with what to set them to.

    The model is compared with the training set, or with the others if that is not checked; the
    others are compared with the training set. Classes that only annotations give are not compared.

    Args:
        view: The config.
        splits: Which of `train`, `val` and `test` to check.
    """
    if view.host is None or _retrieves(view):
        return
    cfg = view.cfg
    for problem in _problems(view, splits):
        name = problem.field.partition('.')[0]
        twin = name.replace('val_', 'test_')
        copied = twin != name and cfg.get(twin) is not None and cfg[twin] == cfg.get(name)
        likewise = f'; likewise in {twin}' * copied
        yield problem._replace(remedy=problem.remedy + likewise)


def _retrieves(view: ConfigView) -> bool:
    """Return whether a model is for retrieval, where each split has labels of its own."""
    if view.host != 'mmpretrain':
        return False
    from mmpretrain.models import BaseRetriever

    return view.entry(view.cfg.get('model'), 'model', 'MODELS').is_a(BaseRetriever)


def _problems(view: ConfigView, splits: Sequence[str]) -> Iterator[Problem]:
    trained = None
    for split in dict.fromkeys(['train', *splits]):
        for leaf in view.datasets(split):
            problems, found = read_classes(view, leaf.entry)
            if split in splits:
                yield from problems
            if found is None or found.number is None:
                continue
            if split == 'train' and trained is None:
                trained = found
            elif split in splits and trained and _comparable(view, splits, trained):
                yield from _differences(view, found, trained)
            elif split in splits and split != 'train' and not _alike(found, trained):
                yield from _narrow_problems(view, found)
    if 'train' in splits:
        yield from _model_problems(view, splits, trained)
    elif view.host == 'mmpretrain' and (head := next(head_numbers(view), None)):
        yield from topk_problems(view, splits, head.classes, f'{head.field} is {head.found}')


def _model_problems(
    view: ConfigView, splits: Sequence[str], trained: Classes | None
) -> Iterator[Problem]:
    """Compare the heads with the training set or, if its classes are unknown, with each other."""
    if trained and _labels_are_listed(view, trained):
        trained = None
    count = trained and trained.number
    if not trained or not count:
        first = next(head_numbers(view), None)
        if first and view.host != 'mmdet':
            reason = f'{first.field} is {first.found}'
            yield from number_problems(view, splits, [first.classes], reason)
        return
    folders = trained.folders
    names = join_first((folders.names if folders else trained.names) or (), 4)
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
    for field, number, classes in head_numbers(view):
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
            )


def _comparable(view: ConfigView, splits: Sequence[str], trained: Classes) -> bool:
    """Return whether the labels of the training set follow from its names or folders."""
    if _labels_are_listed(view, trained):
        return False
    numbers = {number.classes for number in head_numbers(view)}
    if 'train' in splits:
        return bool(numbers)
    # A config that is only tested may name a training set of other classes.
    return bool(numbers) and numbers <= {trained.number, trained.things}


def _labels_are_listed(view: ConfigView, trained: Classes) -> bool:
    """Return whether a list gives the labels, independently of the names of the class."""
    return view.host == 'mmpretrain' and not (trained.own or trained.folders)


def _alike(found: Classes, trained: Classes | None) -> bool:
    """Return whether two data sets list the same classes; then only the checkpoint can differ."""
    return trained is not None and (found.names, found.number) == (trained.names, trained.number)


def _differences(view: ConfigView, found: Classes, trained: Classes) -> Iterator[Problem]:
    """Compare the labels of a data set with those of the training set."""
    if found.folders and trained.folders:
        if problem := shift_problem(found.folders, trained.folders, found.field):
            yield problem
        return
    for one, other in ((found, trained), (trained, found)):
        if one.folders and other.own and other.names:
            label = misnamed(other.names, one.folders)
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
    short = len(names) < len(wanted) and not classifier
    if names[:common] != wanted[:common] or short:
        yield Problem(
            f'{found.field}.metainfo.classes',
            f'is ({join_first(names)}), but {trained.field} has ({join_first(wanted)}), and '
            'classes are matched by position',
            'set it to these',
        )
