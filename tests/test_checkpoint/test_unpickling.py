"""The unpickler rebuilds weights, turns everything else into stand-ins and runs nothing."""

import argparse
import collections
import contextlib
import copyreg
import dataclasses
import datetime
import enum
import functools
import io
import os
import pathlib
import pickle
import sys
import zipfile
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch import nn

from mmcloformer.checkpoint import get_state_dict, read_checkpoint
from mmcloformer.checkpoint.unpickling import StandIn, Unpickler, find_stand_ins
from mmcloformer.errors import CheckpointError
from tests.payload import Call


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    rate: float = 0.1


class CfgNode(dict):
    """As yacs's: a dict with attributes."""

    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__['frozen'] = False


class Names(list):
    pass


class Slots:
    __slots__ = ('value',)

    def __init__(self):
        self.value = 1


def plain():
    base = torch.arange(10.0)
    return dict(
        float=torch.arange(6.0).view(2, 3),
        half=torch.ones(2).half(),
        bfloat16=torch.ones(2).bfloat16(),
        float8=torch.ones(3).to(torch.float8_e4m3fn),
        long=torch.tensor(3),
        bool=torch.tensor([True, False]),
        complex=torch.ones(2, dtype=torch.complex64),
        parameter=nn.Parameter(torch.ones(3)),
        empty=torch.empty(0, 3),
        transposed=torch.arange(6.0).view(2, 3).t(),
        expanded=torch.ones(1).expand(4),
        whole=base,
        part=base[2:8:2],
    )


OTHERS = dict(
    namespace=argparse.Namespace(out=pathlib.Path('out')),
    nested=CfgNode(model=CfgNode(depth=1), names=Names(['a'])),
    enum=Colour.RED,
    dataclass=Settings(),
    slots=Slots(),
    time=datetime.datetime(2020, 1, 1),
    partial=functools.partial(print, 1),
    deque=collections.deque([1], maxlen=3),
    simple=SimpleNamespace(a=1),
    function=nn.functional.relu,
    kind=nn.Linear,
    model=nn.Linear(2, 2),
    random=np.random.RandomState(0),
    range=range(3),
    objects=np.array([None, {}], dtype=object),
    record=np.zeros(2, dtype=[('a', 'i4')]),
    sparse=torch.ones(2, 2).to_sparse(),
)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_weights_come_back_and_all_else_is_inert(tmp_path, protocol, zipped):
    path = tmp_path / 'file.pth'
    weights = plain()
    torch.save(
        dict(model=weights, others=OTHERS),
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    loaded = read_checkpoint(path)
    read = get_state_dict(loaded, 'file')
    for key, value in weights.items():
        assert read[key].dtype == value.dtype
        assert read[key].stride() == value.stride()
        assert torch.equal(read[key].float(), value.detach().float()), key
    assert read['part'].data_ptr() == read['whole'].data_ptr() + 8
    assert dict(find_stand_ins(loaded)).keys() == {f'others.{key}' for key in OTHERS}
    with pytest.raises(CheckpointError, match=r'refused for resuming: others\.namespace is'):
        read_checkpoint(path, strict=True)


def test_a_class_need_not_exist(tmp_path, monkeypatch):
    """As yacs.config.CfgNode, which the released code saves, where yacs is not installed."""
    module = ModuleType('absent')
    module.Node = type('Node', (CfgNode,), dict(__module__='absent'))
    path = tmp_path / 'file.pth'
    with monkeypatch.context() as context:
        context.setitem(sys.modules, 'absent', module)
        torch.save(dict(model=plain(), config=module.Node(a=1)), path)
    assert repr(read_checkpoint(path)['config']) == 'an object of absent.Node'
    assert 'absent' not in sys.modules


def test_dicts_of_other_classes_become_plain(tmp_path):
    path = tmp_path / 'file.pth'
    counted = collections.defaultdict(list, a=[1])
    torch.save([ConfigDict(a=dict(b=1)), counted, collections.defaultdict(Call)], path)
    nested, listed, empty = read_checkpoint(path, strict=True)
    assert (nested, listed, empty) == (dict(a=dict(b=1)), dict(a=[1]), {})
    assert {type(each) for each in (nested, nested['a'], listed, empty)} == {dict}


def test_plain_objects_stay(tmp_path):
    values = [
        {1, 2},
        frozenset([1]),
        b'a\xff',
        b'',
        1j,
        1 << 3000,
        (None, True, 'é'),
        collections.Counter('aab'),
        collections.OrderedDict(a=1),
        torch.Size([1]),
        torch.device('cpu'),
        torch.float16,
        [np.float64(0.5), np.int64(-3), np.bool_(True), {np.int64(3): np.float32(1)}],
    ]
    arrays = [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.array(['a', 'bcd']), np.array(1)]
    arrays += [np.arange(3).astype('>i4'), np.asfortranarray(np.ones((2, 3)))]
    path = tmp_path / 'file.pth'
    values.append(values[0])
    cycle = [np.float64(1)]
    cycle.append(cycle)
    torch.save((values, [*arrays, *arrays], cycle), path)  # Each array is stored once.
    found, found_arrays, cycle = read_checkpoint(path, strict=True)
    assert cycle[1] is cycle
    for first, again in zip(found_arrays, found_arrays[len(arrays) :]):
        assert first is again
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    assert type(found[-2][0]) is np.float64
    for array, original in zip(found_arrays, arrays):
        assert type(array) is np.ndarray
        assert array.dtype == original.dtype
        assert array.flags.f_contiguous == original.flags.f_contiguous
        assert array.flags.writeable
        assert np.array_equal(array, original)


@pytest.mark.parametrize('core', ['core', '_core'])
def test_histories_of_mmengine_from_either_numpy(tmp_path, core):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    path = tmp_path / 'run.pth'
    torch.save([history, np.int64(3)], path, _use_new_zipfile_serialization=False)
    here = np.float64().__reduce__()[0].__module__.encode()
    path.write_bytes(path.read_bytes().replace(here, f'numpy.{core}.multiarray'.encode()))
    loaded, number = read_checkpoint(path, strict=True)
    assert number == 3
    assert loaded.mean() == loaded.statistics('mean') == 1.5
    for found, original in zip(loaded.data, history.data, strict=True):
        assert found.dtype == original.dtype
    loaded.update(4)
    assert loaded.current() == 4


class Effect:
    """A class whose construction and state have an effect."""

    def __new__(cls, path=None):
        if path:
            os.mkdir(path)
        return super().__new__(cls)

    def __setstate__(self, path):
        os.mkdir(path)

    def __setitem__(self, path, _):
        os.mkdir(path)

    def append(self, path):
        os.mkdir(path)


class Nested:
    """A dict-like and list-like object of another class."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Effect, (), None, iter([self.path])


def text(value):
    value = str(value).encode()
    return b'X' + len(value).to_bytes(4, 'little') + value


def name(module, attribute):
    return f'c{module}\n{attribute}\n'.encode()


HERE = __name__
EFFECT = name(HERE, 'Effect')
# Pickles that make a folder, by opcode or by what they call.
ATTACKS = {
    'REDUCE': lambda path: name('os', 'mkdir') + text(path) + b'\x85R.',
    'REDUCE by the name of Python 2': lambda path: name('posix', 'mkdir') + text(path) + b'\x85R.',
    'dotted STACK_GLOBAL': lambda path: (
        b'\x80\x04' + text('torch') + text('os.mkdir') + b'\x93' + text(path) + b'\x85R.'
    ),
    'INST': lambda path: b'(' + text(path) + b'ios\nmkdir\n.',
    'OBJ': lambda path: b'(' + name('os', 'mkdir') + text(path) + b'o.',
    'NEWOBJ': lambda path: EFFECT + text(path) + b'\x85\x81.',
    'NEWOBJ_EX': lambda path: b'\x80\x04' + EFFECT + b')}' + text('path') + text(path) + b's\x92.',
    'BUILD': lambda path: EFFECT + b')\x81' + text(path) + b'b.',
    'SETITEM': lambda path: EFFECT + b')\x81' + text(path) + b'Ns.',
    'APPENDS': lambda path: EFFECT + b')\x81(' + text(path) + b'e.',
    'getattr': lambda path: pickle.dumps(
        Call(Call(getattr, Call(__import__, 'os'), 'mkdir'), str(path)), 2
    ),
    'partial': lambda path: pickle.dumps(Call(Call(functools.partial, os.mkdir, str(path))), 2),
    'eval': lambda path: pickle.dumps(Call(eval, f'__import__("os").mkdir({str(path)!r})'), 4),
    'exec': lambda path: pickle.dumps(Call(exec, f'import os; os.mkdir({str(path)!r})'), 2),
    'a pickle in a pickle': lambda path: pickle.dumps(
        Call(pickle.loads, pickle.dumps(Call(os.mkdir, str(path)))), 2
    ),
    'copyreg._reconstructor': lambda path: (
        name('copyreg', '_reconstructor')
        + EFFECT
        + name('builtins', 'object')
        + b'N\x87R'
        + text(path)
        + b'b.'
    ),
    'a tensor of a subclass': lambda path: pickle.dumps(
        Call(torch._tensor._rebuild_from_type_v2, os.mkdir, torch.Tensor, (str(path),), None), 2
    ),
    'an allowed function': lambda path: pickle.dumps(Call(collections.Counter, Nested(path)), 2),
}


@pytest.mark.parametrize('attack', ATTACKS)
def test_no_attack_runs(attack, tmp_path):
    touched = tmp_path / 'touched'
    content = ATTACKS[attack](touched)
    with contextlib.suppress(TypeError, AttributeError):  # After it ran.
        pickle.loads(content)
    touched.rmdir()
    with contextlib.suppress(TypeError, pickle.UnpicklingError):
        assert isinstance(Unpickler(io.BytesIO(content)).load(), StandIn)
    for form in ('zip', 'legacy'):
        path = tmp_path / f'{form}.pth'
        write(path, content, form)
        with pytest.raises(CheckpointError, match=r'refused|damaged'):
            read_checkpoint(path)
    assert not touched.exists()


def write(path, content, form='zip', storages=()):
    """Write a pickle as torch's formats have it."""
    if form == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('archive/data.pkl', content)
            for key, data in storages:
                archive.writestr(f'archive/data/{key}', data)
    else:
        magic, version, system = 0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True)
        head = b''.join(pickle.dumps(part, 2) for part in (magic, version, system))
        path.write_bytes(head + content + pickle.dumps([], 2))


def test_the_registry_of_extensions_is_not_used(tmp_path):
    copyreg.add_extension('posix', 'mkdir', 0xF7)
    try:
        content = b'\x82\xf7' + text(tmp_path / 'touched') + b'\x85R.'
        with pytest.raises(pickle.UnpicklingError, match='extension'):
            Unpickler(io.BytesIO(content)).load()
    finally:
        copyreg.remove_extension('posix', 'mkdir', 0xF7)
    assert not (tmp_path / 'touched').exists()


@pytest.mark.parametrize(
    'target',
    [
        name('torch._utils', '_rebuild_tensor_v2'),
        name('torch._utils', '_rebuild_parameter'),
        name('collections', 'OrderedDict'),
        name('torch', 'FloatStorage'),
        name('any', 'Class'),
        b'}',
        b')',
    ],
)
def test_the_state_of_no_shared_object_is_set(target):
    """Protocol 2's BUILD sets any attribute of any object: a function's defaults, for example."""
    state = b'N}' + text('__defaults__') + b')s\x86'
    with pytest.raises(pickle.UnpicklingError, match='state of'):
        Unpickler(io.BytesIO(target + state + b'b.')).load()


@pytest.mark.parametrize(
    'content',
    [
        b'X\xff\xff\xff\x7fabc.',  # a text of 2 GB
        b'\x80\x04\x8e' + (1 << 62).to_bytes(8, 'little') + b'abc.',  # bytes
        b'Nr\xff\xff\xff\x7f0j\xff\xff\xff\x7f.',  # the entry 2 ** 31 of the memo
        b'(' * 100 + b'.',
        b'.',
    ],
)
def test_sizes_that_a_pickle_gives_take_no_memory(content):
    with contextlib.suppress(pickle.UnpicklingError, EOFError, IndexError, MemoryError):
        assert Unpickler(io.BytesIO(content)).load() is None


def tensor(numel=4, offset=0, size=(4,), stride=(1,), key='0', kind='storage', dtype='Float'):
    """Pickle of a state dict with one tensor."""

    class Storage:
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return kind, getattr(torch, f'{dtype}Storage'), key, 'cpu', numel
            return None

    file = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    Pickler(file, 2).dump({'w': Call(rebuild, Storage(), offset, size, stride, False, {})})
    return file.getvalue()


@pytest.mark.parametrize(
    'fields',
    [
        dict(numel=1 << 40, size=(1 << 40,)),
        dict(numel=5),
        dict(numel=3),
        dict(numel=-4),
        dict(size=(5,)),
        dict(size=(1 << 40,)),
        dict(offset=1),
        dict(offset=-1),
        dict(size=(2, 2), stride=(4, 1)),
        dict(stride=(-1,)),
        dict(key='1'),
        dict(key='../data.pkl'),
        dict(kind='other'),
    ],
)
def test_tensors_stay_inside_their_storage(fields, tmp_path):
    path = tmp_path / 'file.pth'
    write(path, tensor(), storages=[('0', bytes(16))])
    assert torch.equal(read_checkpoint(path)['w'], torch.zeros(4))
    write(path, tensor(**fields), storages=[('0', bytes(16))])
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)


def test_a_small_file_takes_little_memory(tmp_path):
    path = tmp_path / 'compressed.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', tensor(numel=1 << 22, size=(1 << 22,)))
        archive.writestr('archive/data/0', bytes(1 << 24))
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)
    # Entries that share one piece of the file.
    path = tmp_path / 'shared.pth'
    write(path, tensor(), storages=[(str(n), bytes(4000)) for n in range(2)])
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)


INT = ('i8', False, True)
PLAIN = (3, '<', None, None, None, -1, -1, 0)
OBJECTS = (3, '<', None, ('a',), {'a': (Call(np.dtype, 'O'), 0)}, 8, 1, 1)
ADDRESS = b'AAAAAAAA'
REBUILD, SCALAR = np.zeros(1).__reduce__()[0], np.float64().__reduce__()[0]


def dtype(*args, state=PLAIN):
    return Call(np.dtype, *args, state=state)


def array(dtype, data, shape=(1,), kind=np.ndarray):
    return Call(REBUILD, kind, (0,), b'b', state=(1, shape, dtype, False, data))


@pytest.mark.parametrize(
    'forged',
    [
        array(dtype(*INT, state=OBJECTS), ADDRESS),
        array(dtype('O'), ADDRESS),
        array(dtype(*INT), ADDRESS, shape=(1 << 40,)),
        array(dtype(*INT), ADDRESS, shape=(-1, -1)),
        array(dtype(*INT), [0] * 8),
        array('O', ADDRESS),
        array(None, ADDRESS),
        Call(SCALAR, dtype(*INT, state=OBJECTS), ADDRESS),
        Call(SCALAR, dtype('V8'), ADDRESS),
        Call(SCALAR, dtype('i8,O'), ADDRESS),
        Call(SCALAR, dtype(*INT), b'A'),
        Call(np.ndarray, (1,), 'O'),
        Call(np.dtype, [('a', 'O')]),
        Call(getattr, HistoryBuffer, '__init__'),
        Call(HistoryBuffer, [1], [1], state=dict(max_length=1 << 60, _log_history=Call(eval, '1'))),
    ],
)
def test_a_forged_number_stays_inert(tmp_path, forged):
    """numpy would take bytes of the file for addresses of objects."""
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict={}, meta=forged), path)
    with contextlib.suppress(CheckpointError):
        value = read_checkpoint(path)['meta']
        # At most numbers of the dtype that is named.
        assert [*find_stand_ins(value)] or value.dtype == np.int64
