"""What travels with the package: a wheel in an environment that never saw the repository."""

import json
import re
import runpy
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import setuptools
from mmengine.config import Config
from mmengine.fileio import load

from tests.conftest import ROOT, coco_options

NOT_SHIPPED = shutil.ignore_patterns('.venv*', '.git', 'data', 'work_dirs', 'build', '*.egg-info')


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    """An interpreter with the wheel, and the hosts of this one, installed."""
    folder = tmp_path_factory.mktemp('packaging')
    source = shutil.copytree(ROOT, folder / 'source', symlinks=True, ignore=NOT_SHIPPED)
    pip = [sys.executable, '-m', 'pip', '--quiet']
    subprocess.run([*pip, 'wheel', '--no-deps', '-w', folder, source], check=True)
    (wheel,) = folder.glob('mmcloformer-*.whl')
    venv.create(folder / 'venv')
    python = folder / 'venv/bin/python'
    subprocess.run([*pip, '--python', python, 'install', '--no-deps', wheel], check=True)
    (packages,) = (folder / 'venv/lib').glob('python*/site-packages')
    # As a plain path the .pth files in it are not followed, so this repository is not found.
    (packages / 'hosts.pth').write_text('\n'.join(site.getsitepackages()))
    return python


@pytest.mark.slow
def test_a_wheel_is_enough_to_train(python, shapes, tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(
        "_base_ = 'mmcloformer::demo/retinanet_cloformer_xxs_shapes.py'\n"
        "model = dict(backbone=dict(arch='xs'), neck=dict(in_channels=[96, 160, 352]))\n"
        "work_dir = 'run'\n"
    )
    find = 'import mmcloformer; print(mmcloformer.__path__[0])'
    run = dict(cwd=tmp_path, check=True, capture_output=True, text=True)
    package = subprocess.run([python, '-c', find], **run).stdout.splitlines()[-1]
    assert str(ROOT) not in package
    tool = [python, f'{package}/.mim/tools/train.py', config, '--cfg-options']
    done = subprocess.run(
        [*tool, 'train_cfg.max_epochs=1', *coco_options(shapes / 'coco')],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'run/epoch_1.pth').is_file()


@pytest.mark.slow
def test_a_wheel_has_nothing_that_needs_a_checkout(python, tmp_path):
    find = 'import mmcloformer; print(mmcloformer.__path__[0])'
    run = dict(cwd=tmp_path, check=True, capture_output=True, text=True)
    package = Path(subprocess.run([python, '-c', find], **run).stdout.splitlines()[-1])
    assert not (package.parent / 'benchmarks').exists()
    tools = {path.name for path in (package / '.mim/tools').rglob('*.py')}
    assert {path.name for path in (ROOT / 'tools').rglob('*.py')} - tools == {
        'benchmark.py',
        'demo_all.py',
    }


def test_a_base_by_the_packages_name_is_the_same_config(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text("_base_ = 'mmcloformer::semantic-fpn_cloformer_s_ade20k.py'\n")
    own = Config.fromfile(ROOT / 'configs/semantic-fpn_cloformer_s_ade20k.py')
    assert Config.fromfile(config).model == own.model


@pytest.mark.parametrize('url', ['https://example.com/mmcloformer', None])
def test_the_description_has_no_relative_links(url, tmp_path, monkeypatch):
    """PyPI shows the README outside of the repository."""
    for name in ('setup.py', 'README.md', 'requirements', 'mmcloformer'):
        (tmp_path / name).symlink_to(ROOT / name)
    citation = [
        line
        for line in (ROOT / 'CITATION.cff').read_text().splitlines()
        if not line.startswith('repository-code')
    ]
    (tmp_path / 'CITATION.cff').write_text(
        '\n'.join([*citation, *([f'repository-code: {url}'] if url else [])])
    )
    given = {}
    monkeypatch.setattr(setuptools, 'setup', given.update)
    runpy.run_path(str(tmp_path / 'setup.py'))
    links = re.findall(r'\]\(([^)]+)\)', given['long_description'])
    assert links
    assert all('://' in link for link in links)
    assert any(link.startswith(f'{url}/blob/') for link in links) == bool(url)


def test_the_model_index_lists_every_config_of_the_paper():
    index = load(ROOT / 'model-index.yml')
    models = [m for file in index['Import'] for m in load(ROOT / file)['Models']]
    listed = {model['Config'] for model in models}
    files = {f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.py')}
    others = {name for name in files if '_tiny-imagenet' in name or name.endswith('_custom.py')}
    assert listed == files - others
    assert all(model['Config'] == f'configs/{model["Name"]}.py' for model in models)


def test_the_model_index_repeats_the_measured_complexity():
    measured = json.loads((ROOT / 'benchmarks/complexity.json').read_text())
    for model in load(ROOT / 'configs/metafile.yml')['Models']:
        whole = measured[model['Name'].replace('_ms-3x', '')]['parts']['whole']
        metadata = model['Metadata']
        assert (metadata['Parameters'], metadata['FLOPs']) == (whole['params'], whole['macs'])
