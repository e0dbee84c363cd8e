"""The prediction tool. Predictions themselves are in test_apis/test_predict.py."""

import shutil

import pytest
import torch
from PIL import Image

from mmcloformer.datasets.shapes import METAINFO
from tests.test_export.tiny_models import NAMES, tiny_config, tiny_model


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """Files of a config and a checkpoint."""
    folder = tmp_path_factory.mktemp('detector')
    cfg = tiny_config(NAMES['mask-rcnn'])
    cfg.dump(folder / 'config.py')
    state = tiny_model(cfg).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=METAINFO)), folder / 'model.pth')
    return folder / 'config.py', folder / 'model.pth'


@pytest.fixture
def folder(shapes, tmp_path):
    scene = Image.open(next((shapes / 'coco' / 'val2017').iterdir())).convert('RGB')
    (tmp_path / 'images' / 'below').mkdir(parents=True)
    scene.save(tmp_path / 'images' / 'scene.jpg')
    scene.save(tmp_path / 'images' / 'below' / 'scene.PNG')
    return tmp_path / 'images'


def written(out):
    return {str(path.relative_to(out)) for path in out.rglob('*.*')}


def test_the_rest_is_predicted_and_bad_files_are_listed(
    tool_error, detector, folder, tmp_path, capsys
):
    (folder / 'cut.jpg').write_bytes((folder / 'scene.jpg').read_bytes()[:-300])
    (folder / 'empty.png').touch()
    (folder / 'notes.txt').write_text('no image')
    shutil.copy(folder / 'notes.txt', folder / 'text.jpg')
    (folder / 'link.jpg').symlink_to('gone.jpg')
    for name, size in (('a_wide.png', (300, 1)), ('high.png', (2, 3000))):
        Image.new('RGB', size).save(folder / name)
    out = tmp_path / 'out'
    message = tool_error('predict.py', *detector, folder, '--out', out)
    output = '\n'.join(capsys.readouterr())
    for name, word in (
        ('cut.jpg', 'cut short'), ('empty.png', 'empty'), ('text.jpg', 'is not an image'),
        ('link.jpg', 'cannot be opened: No such file'),
        ('a_wide.png', '(300x1 pixels) cannot be predicted'),
        ('high.png', 'cannot be predicted'),
    ):  # fmt: skip
        assert word in next(line for line in output.splitlines() if f'{folder / name} ' in line)
    assert '2 images predicted' in output
    assert '1 files are left out' in output
    assert '(1 .txt)' in output
    assert message.startswith('error: 6 files could not be read or predicted')
    assert 'Traceback' not in output
    stems = ('scene', 'below/scene')
    assert written(out) == {f'{stem}.{suffix}' for stem in stems for suffix in ('png', 'json')}


def test_several_arguments_and_no_pictures(tool_main, detector, folder, tmp_path):
    (folder / 'notes.txt').write_text('no image')
    shutil.copy(folder / 'scene.jpg', folder / 'scene.webp')
    files = [path for path in sorted(folder.iterdir()) if path.suffix in ('.jpg', '.webp', '')]
    out = tmp_path / 'out'
    printed = tool_main(
        'predict.py', *detector, *files, '--no-pictures', '--classes', 'star', '--score-thr', 0.5,
        '--out', out,
    )  # fmt: skip
    assert '3 images predicted' in printed
    assert written(out) == {'scene.jpg.json', 'scene.webp.json', 'below/scene.json'}


def test_a_folder_without_images(tool_error, detector, tmp_path):
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts' / 'notes.txt').write_text('no image')
    message = tool_error('predict.py', *detector, tmp_path / 'texts', '--out', tmp_path / 'out')
    assert 'found no image' in message


@pytest.mark.parametrize('out', ['scene.jpg', 'scene.jpg/below'])
def test_an_output_that_cannot_be_written(tool_error, detector, folder, out):
    """That is said before the checkpoint is looked for."""
    config = detector[0]
    out = folder / out
    message = tool_error('predict.py', config, 'gone.pth', folder / 'scene.jpg', '--out', out)
    assert message.startswith(f'error: cannot write to {out} ')


def test_a_config_without_a_test_set(tool_error, detector, folder, tmp_path):
    args = (*detector, folder, '--out', tmp_path / 'out', '--cfg-options')
    options = [f'{split}_dataloader=None' for split in ('val', 'test')]
    assert 'test_dataloader' in tool_error('predict.py', *args, *options)
