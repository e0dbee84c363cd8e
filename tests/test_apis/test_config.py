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
