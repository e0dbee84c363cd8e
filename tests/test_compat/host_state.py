"""What the host packages hold in this process."""

import sys
from types import ModuleType

HOSTS = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')


def snapshot():
    """Return place -> object for the names in every imported module of a host, the attributes of
    its classes, and the items of dicts in both. A dict of several names is listed once.
    Submodules are left out, because imports add them."""
    state, dicts = {}, set()

    def add(owner, attributes):
        for key, value in list(attributes.items()):
            if key == '__warningregistry__':
                continue
            if not isinstance(value, dict):
                if not isinstance(value, ModuleType) or key == '_ext':
                    state[f'{owner}.{key}'] = value
            elif id(value) not in dicts:
                dicts.add(id(value))
                state.update({f'{owner}.{key}[{item}]': value[item] for item in list(value)})

    for name in sorted(sys.modules):
        module = sys.modules[name]
        if name.partition('.')[0] in HOSTS and isinstance(module, ModuleType):
            add(name, vars(module))
            for key, value in list(vars(module).items()):
                if isinstance(value, type) and value.__module__ == name:
                    add(f'{name}.{key}', vars(value))
    if 'mmcv._ext' in sys.modules:
        state['sys.modules[mmcv._ext]'] = sys.modules['mmcv._ext']
    return {place: value for place, value in state.items() if not place.startswith('mmcv._ext.')}


def changes(before, after, modules):
    """Return the places that differ, without those of modules that are not among `modules`."""
    missing = object()
    places = {p for p in before | after if before.get(p, missing) is not after.get(p, missing)}
    added = [f'{name}.' for name in sys.modules if name not in modules and name != 'mmcv._ext']
    return {place for place in places if not place.startswith(tuple(added))}
