import re

import pytest

from mmcloformer.apis.config import read_config
from mmcloformer.errors import ConfigError


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('none.py', 'does not exist'),
        ('mmdet::none.py', 'specify the package name and relative config path'),
        ('mmdet::retinanet/none.py', 'none.py" does not exist'),
        ('numpy::retinanet/none.py', 'does not support to load numpy'),
    ],
)
def test_a_name_of_no_config_is_said(tmp_path, name, reason):
    with pytest.raises(ConfigError, match=f'config {name} .*{re.escape(reason)}'):
        read_config(name)
    heir = tmp_path / 'heir.py'
    heir.write_text(f'_base_ = {name!r}')
    with pytest.raises(ConfigError, match=rf'config {heir} cannot be read: .*(none\.py|{reason})'):
        read_config(heir)


@pytest.mark.parametrize(
    ('code', 'reason'),
    [
        ("_base_ = ['a.py', 'b.py']", 'Duplicate key'),
        ('a = (', 'SyntaxError'),
        ('a = b', "NameError: name 'b' is not defined"),
    ],
)
def test_code_that_cannot_be_read(tmp_path, code, reason):
    for name in ('a.py', 'b.py'):
        (tmp_path / name).write_text('x = 1')
    (tmp_path / 'config.py').write_text(code)
    with pytest.raises(ConfigError, match=f'config .*config.py cannot be read: .*{reason}'):
        read_config(tmp_path / 'config.py')


def test_a_base_may_be_named_by_a_variable(tmp_path):
    (tmp_path / 'own_base.py').write_text('a = 1')
    (tmp_path / 'own.py').write_text("_base_ = './{{ fileBasenameNoExtension }}_base.py'")
    assert read_config(tmp_path / 'own.py').a == 1
