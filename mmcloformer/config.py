"""The reader of a config: what the host builds from it, and which field says so.

Everything that needs to know a data set, a pipeline, a head, an evaluator or the class behind a
`type` asks `ConfigView`. A type is resolved through the host's registry, so a name, a scoped name,
a full path and the class itself (pure-Python configs) are the same to its callers.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

import mmengine.registry
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import DATASETS

from .errors import ConfigError

HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
SPLITS = ('train', 'val', 'test')
BACKENDS = ('backend_args', 'file_client_args')
"""Arguments of a step that say where the files of its paths are."""


class Entry(NamedTuple):
    """A part of a config that the host builds.

    Attributes:
        field: Name of its field, such as `train_dataloader.dataset.datasets.0`.
        settings: Its fields.
        kind: The class that its `type` names; None if there is no such class.
    """

    field: str
    settings: Mapping[str, Any]
    kind: Any

    def is_a(self, *classes: type) -> bool:
        """Return whether the host builds an instance of one of these classes."""
        return isinstance(self.kind, type) and issubclass(self.kind, classes)


class DatasetEntry(NamedTuple):
    """A data set of a loader, not a wrapper such as ConcatDataset.

    Attributes:
        entry: The data set.
        steps: The transforms that its samples pass, those of wrappers included.
        split: `train`, `val` or `test`.
    """

    entry: Entry
    steps: tuple[Entry, ...]
    split: str

    @property
    def is_local(self) -> bool:
        """Whether the steps read files by their paths on this machine, as far as is known."""
        return all(is_in_hosts(step.kind) for step in self.steps[:1]) and not any(
            step.settings.get(key) for step in self.steps for key in BACKENDS
        )


class Node(NamedTuple):
    """A value of a config, at any depth.

    Attributes:
        field: Name of its field.
        value: The value.
        parents: The groups of fields around it that have a `type`, from the outside.
    """

    field: str
    value: Any
    parents: tuple[Mapping[str, Any], ...]


def walk(
    value: Any, field: str = '', parents: tuple[Mapping[str, Any], ...] = ()
) -> Iterator[Node]:
    """Yield a value of a config and everything in it.

    Args:
        value: A group of fields, a list, or a single value.
        field: Name of the value; empty for a whole config.
        parents: See `Node`.
    """
    if field:
        yield Node(field, value, parents)
    if isinstance(value, Mapping):
        items: Any = value.items()
        if value.get('type') is not None:
            parents = (*parents, value)
    else:
        items = enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, child in items:
        yield from walk(child, f'{field}.{key}' if field else str(key), parents)


def is_in_hosts(kind: Any) -> bool:
    """Return whether a class or function is the hosts' or this package's own, not a user's."""
    package = getattr(kind, '__module__', '').partition('.')[0]
    return package in (*HOSTS, 'mmcv', 'mmengine', 'mmcloformer', 'torch')


def are_in_hosts(entries: Iterable[Entry]) -> bool:
    """Return whether all classes are the hosts' own, and none of them holds other transforms."""
    return all(is_in_hosts(each.kind) and 'transforms' not in each.settings for each in entries)


class ConfigView:
    """What a host reads from a config. Later changes of the config are visible in it.

    Args:
        cfg: The whole config, of any host.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    @property
    def host(self) -> str | None:
        """The host whose Runner uses the config, or None for another project.

        It is the `default_scope`. Where that is not set, as in pure-Python configs, or is a
        project's own, it is the host of the model's class.
        """
        scope = self.cfg.get('default_scope')
        if scope in HOSTS:
            return str(scope)
        model = self.resolve(self.cfg.get('model'), 'MODELS')
        packages = (base.__module__.partition('.')[0] for base in getattr(model, '__mro__', ()))
        return next((name for name in packages if name in HOSTS), None)

    @property
    def annotation_loaders(self) -> tuple[type, ...]:
        """The host's classes of steps that load annotations, label maps included."""
        if self.host != 'mmseg':
            return (LoadAnnotations,)
        from mmseg.datasets.transforms import LoadBiomedicalAnnotation, LoadDepthAnnotation

        return LoadAnnotations, LoadBiomedicalAnnotation, LoadDepthAnnotation

    def loads_label_maps(self, step: Entry) -> bool:
        """Return whether a step reads label maps, which mmdet's do if they say so."""
        if not step.is_a(*self.annotation_loaders):
            return False
        if self.host != 'mmdet':
            return True
        from mmdet.datasets.transforms import LoadPanopticAnnotations

        return step.is_a(LoadPanopticAnnotations) or bool(step.settings.get('with_seg'))

    def require_host(self) -> str:
        """Return the host.

        Raises:
            ConfigError: If the config is of another project.
        """
        host = self.host
        if host is None:
            raise ConfigError(
                f'the config needs a model of {", ".join(HOSTS)}, or one of them as default_scope; '
                f'default_scope is {self.cfg.get("default_scope")}'
            )
        return host

    @property
    def scope(self) -> str:
        """The scope in which the host looks up the names of classes."""
        return str(self.cfg.get('default_scope') or self.host or 'mmengine')

    def resolve(self, kind: Any, registry: str) -> Any:
        """Return the class that the host builds, or None if it has no such class.

        Args:
            kind: A `type`, or the settings that hold it.
            registry: Name of the registry, such as `DATASETS`.
        """
        scope = self.cfg.get('default_scope') or 'mmengine'
        if isinstance(kind, Mapping):
            scope = kind.get('_scope_') or scope  # mmengine marks the configs of another host.
            kind = kind.get('type')
        if not isinstance(kind, str):
            return kind
        root = getattr(mmengine.registry, registry)
        if '.' in kind:  # A scope of its own, or a full path.
            return root.get(kind)
        return root.get(f'{scope}.{kind}') or root.get(kind)

    def entry(self, settings: Any, field: str, registry: str) -> Entry:
        """Return a part of the config with its class.

        Args:
            settings: Its fields; anything but a group of fields counts as an empty one.
            field: Name of its field.
            registry: Name of the registry of its class.
        """
        settings = settings if isinstance(settings, Mapping) else {}
        return Entry(field, settings, self.resolve(settings, registry))

    def loader(self, split: str) -> Mapping[str, Any]:
        """Return the settings of a split's loader; empty without one, and for a list of several."""
        found = self.cfg.get(f'{split}_dataloader')
        return found if isinstance(found, Mapping) else {}

    def datasets(self, *splits: str) -> Iterator[DatasetEntry]:
        """Yield the data sets of some of `SPLITS`, those inside of wrappers included."""
        for split in splits:
            settings = self.loader(split).get('dataset')
            if isinstance(settings, Mapping) and settings:
                yield from self._leaves(settings, f'{split}_dataloader.dataset', split, ())

    def _leaves(
        self, settings: Mapping[str, Any], field: str, split: str, after: tuple[Entry, ...]
    ) -> Iterator[DatasetEntry]:
        steps = (*self.steps(settings.get('pipeline'), f'{field}.pipeline'), *after)
        inside = [(f'{field}.datasets.{i}', each) for i, each in _listed(settings.get('datasets'))]
        inside.append((f'{field}.dataset', settings.get('dataset')))
        # A data set may have a field of that name for something else, such as a text.
        inner = [(name, each) for name, each in inside if isinstance(each, Mapping) and each]
        if not inner:
            yield DatasetEntry(self.entry(settings, field, 'DATASETS'), steps, split)
        for name, each in inner:
            yield from self._leaves(each, name, split, steps)

    def build_lazily(self, dataset: Entry, with_names: bool = False) -> BaseDataset | None:
        """Return a data set that has not listed its samples, or None if the host cannot build it.

        Args:
            dataset: The data set.
            with_names: Return None if the host refuses the names of classes, rather than leave them
                out.
        """
        if not dataset.is_a(BaseDataset):
            return None
        left_out = ['type', '_scope_']  # mmengine adds `_scope_` to inherited fields.
        lazy = {**dataset.settings, 'pipeline': [], 'lazy_init': True}
        for _ in range(1 if with_names else 2):
            settings = {k: v for k, v in lazy.items() if k not in left_out}
            with suppress(Exception):  # Any error; the host reports it when it builds the data set.
                built: BaseDataset = dataset.kind(**settings)
                return built
            left_out += ['metainfo', 'classes']
        return None

    def build_dataset(self, settings: Mapping[str, Any], **changes: Any) -> Any:
        """Build a data set as the host does, whatever the default scope of this process is."""
        return DATASETS.build({'_scope_': self.scope, **settings, **changes})

    def steps(self, pipeline: Any, field: str) -> tuple[Entry, ...]:
        """Return the transforms of a pipeline, which is a list of settings or None."""
        return tuple(
            self.entry(step, f'{field}.{i}', 'TRANSFORMS') for i, step in _listed(pipeline)
        )

    def evaluators(self, *splits: str) -> Iterator[Entry]:
        """Yield the evaluators of some splits: one, several, or those of an `Evaluator`."""
        for split in splits:
            yield from self._metrics(self.cfg.get(f'{split}_evaluator'), f'{split}_evaluator')

    def _metrics(self, found: Any, field: str) -> Iterator[Entry]:
        for index, each in _listed(found):
            yield from self._metrics(each, f'{field}.{index}')
        if isinstance(found, Mapping) and 'metrics' in found:
            yield from self._metrics(found['metrics'], f'{field}.metrics')
        elif isinstance(found, Mapping):
            yield self.entry(found, field, 'METRICS')

    def ignored_labels(self, *splits: str) -> dict[str, int]:
        """Return the values of label maps that mmseg leaves out, by field of what leaves them out.

        These are the heads for `train`, and the evaluators for `val` and `test`.
        """
        if self.host != 'mmseg':
            return {}
        head = import_module('mmseg.models.decode_heads.decode_head').BaseDecodeHead
        metric = import_module('mmseg.evaluation').IoUMetric
        heads = self.parts(head) if 'train' in splits else ()
        evaluators = self.evaluators(*(split for split in splits if split != 'train'))
        found = {node.field: node.value for node in heads}
        found |= {each.field: each.settings for each in evaluators if each.is_a(metric)}
        return {field: settings.get('ignore_index', 255) for field, settings in found.items()}

    def preprocessor(self) -> Entry:
        """Return the data preprocessor; without a `type` it has the host's default class."""
        field = 'model.data_preprocessor'
        found = (self.cfg.get('model') or {}).get('data_preprocessor')
        if not found:  # mmpretrain keeps it outside of the model.
            field, found = 'data_preprocessor', self.cfg.get('data_preprocessor')
        while isinstance(found, Mapping) and 'data_preprocessor' in found:  # mmdet's branches
            field, found = f'{field}.data_preprocessor', found['data_preprocessor']
        entry = self.entry(found, field, 'MODELS')
        if entry.settings.get('type') is None:
            default: Any = BaseDataPreprocessor
            if self.host == 'mmpretrain':
                default = self.resolve('mmpretrain.ClsDataPreprocessor', 'MODELS')
            entry = entry._replace(kind=default)
        return entry

    def parts(self, *classes: type) -> Iterator[Node]:
        """Yield the settings of the model's parts of some classes, at any depth."""
        for node in walk(self.cfg.get('model'), 'model'):
            if not isinstance(node.value, Mapping) or node.value.get('type') is None:
                continue
            if self.entry(node.value, node.field, 'MODELS').is_a(*classes):
                yield node


def _listed(value: Any) -> Iterator[tuple[int, Any]]:
    yield from enumerate(value if isinstance(value, (list, tuple)) else ())
