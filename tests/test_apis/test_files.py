"""Which files are predicted, and what their predictions are called."""

import os
from pathlib import Path

import pytest

from mmcloformer.apis.files import plan_files, require_writable
from mmcloformer.errors import UserError

ENDINGS = ('.png', '.json', '_labels.png')


def is_image(path):
    return path.lower().endswith(('.jpg', '.png', '.tif', 'scan'))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Empty files; relative paths are relative to the folder above."""
    for name in ('scene.jpg', 'grey.png', 'notes.txt', 'below/scene.PNG', '.hidden/a.jpg'):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'images'


def plan(*inputs, out='out', endings=ENDINGS):
    """Stems of the images by their paths."""
    sources = plan_files(inputs, out, endings, is_image)
    return {each.path: str(each.stem) for each in sources if is_image(each.path)}


ALL = {
    'images/below/scene.PNG': 'out/below/scene',
    'images/grey.png': 'out/grey',
    'images/scene.jpg': 'out/scene',
}


@pytest.mark.parametrize(
    'inputs',
    [
        ['images'],
        ['images/'],
        ['images/**/*.[jpP]*'],
        ['images/grey.png', 'images/scene.jpg', 'images/below'],
        ['images/*.*', 'images/below', 'images/scene.jpg'],
        ['images/./below/../*.*', 'images/below'],
    ],
)
def test_files_folders_and_patterns(folder, inputs):
    found = plan(*inputs)
    assert {os.path.normpath(path): stem for path, stem in found.items()} == ALL


def test_one_file_or_subfolder_is_the_root(folder):
    assert plan('images/below/*') == {'images/below/scene.PNG': 'out/scene'}
    assert plan('images/scene.jpg') == {'images/scene.jpg': 'out/scene'}
    assert plan('images/below') == {'images/below/scene.PNG': 'out/scene'}


def test_links_are_followed_and_circles_end(folder, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'far.jpg').touch()
    (folder / 'link').symlink_to(tmp_path / 'elsewhere')
    (folder / 'one.jpg').symlink_to(tmp_path / 'elsewhere' / 'far.jpg')
    (folder / 'broken.jpg').symlink_to('gone.jpg')
    for circle in ('below/up', 'self'):
        (folder / circle).symlink_to(folder)
    (tmp_path / 'elsewhere' / 'back').symlink_to(folder)
    more = ('link/far', 'one', 'broken')
    expected = ALL | {f'images/{name}.jpg': f'out/{name}' for name in more}
    assert plan('images') == expected
    (tmp_path / 'whole').symlink_to(folder)
    assert len(plan('whole')) == len(expected)


def test_images_that_differ_only_by_suffix_keep_it(folder):
    for name in ('scene.png', 'scene.txt', 'scan', 'scan.tif'):
        (folder / name).touch()
    (folder / 'below' / 'scene.xml').touch()
    found = plan('images')
    assert found['images/scene.jpg'] == 'out/scene.jpg'
    assert found['images/scene.png'] == 'out/scene.png'
    assert found['images/scan'] == 'out/scan'
    assert found['images/below/scene.PNG'] == 'out/below/scene'
    assert len(set(found.values())) == len(found) == 6


def test_label_maps_are_no_other_images_picture(folder):
    (folder / 'scene_labels.jpg').touch()
    assert plan('images', endings=ENDINGS[:2])['images/scene_labels.jpg'] == 'out/scene_labels'
    files = [f'{stem}{ending}' for stem in plan('images').values() for ending in ENDINGS]
    assert len(set(files)) == len(files) == 12


def test_videos_get_a_folder_of_their_own(folder):
    (folder / 'clip.mp4').touch()
    (source,) = plan_files(['images/clip.mp4'], 'out', ENDINGS, is_image)
    assert str(source.video) == 'out/clip.mp4'
    assert source.given
    found = {each.path: each.given for each in plan_files(['images'], 'out', ENDINGS, is_image)}
    assert found['images/notes.txt'] is False
    with pytest.raises(UserError, match=r'clip\.mp4, to be the folder of its frames, is a file'):
        plan_files(['images/clip.mp4'], 'images', ENDINGS, is_image)


def test_urls():
    urls = ('https://a.org/b/photo.jpg?size=1', 's3://bucket/other.png')
    same = [f'https://a.org/{name}' for name in ('1/photo.jpg', '2/photo.jpg', '1/photo.jpg?b')]
    sources = plan_files(urls, 'out', ENDINGS, lambda path: True)
    assert {each.path: str(each.stem) for each in sources} == {
        urls[0]: 'out/photo', urls[1]: 'out/other'
    }  # fmt: skip
    for url in ('http://a.org/image/?id=3', 'http://a.org/..'):
        (source,) = plan_files([url], 'out', ENDINGS, lambda path: True)
        assert source.stem.parent == source.video.parent == Path('out')
        assert source.stem.name.startswith('a_org')
    stems = {each.stem for each in plan_files(same, 'out', ENDINGS, lambda path: True)}
    assert len(stems) == 3


def test_nothing_is_overwritten(folder):
    with pytest.raises(UserError, match=r'grey\.png, .* already exists: use another --out'):
        plan('images', out='images')
    (folder / 'below' / 'scene.json').write_text('of labelme')
    with pytest.raises(UserError, match=r'below/scene\.json.* already exists'):
        plan('images/below', out='images/below', endings=['.json'])
    (folder / 'notes.json').touch()  # Beside a file that is no image.
    assert plan('images/scene.jpg', 'images/notes.txt', out='images')
    (folder / 'scene_labels.png').touch()
    with pytest.raises(UserError, match=r'scene_labels\.png.* already exists'):
        plan('images/scene.jpg', out='images')
    (folder / 'links').mkdir()  # Beside a link to an image in another folder.
    (folder / 'links/one.jpg').symlink_to(folder / 'scene.jpg')
    (folder / 'links/one.json').touch()
    with pytest.raises(UserError, match=r'one\.json.* already exists'):
        plan('images/links/one.jpg', out='images/links', endings=['.json'])


def test_a_second_run_into_a_folder_among_the_images(folder):
    first = plan('images', out='images/out')
    for stem in first.values():
        os.makedirs(os.path.dirname(stem), exist_ok=True)
        for ending in ENDINGS:
            open(f'{stem}{ending}', 'w').close()
    assert plan('images', out='images/out') == first


@pytest.mark.parametrize('nothing', ['absent.png', 'images/*.avif', 'images/empty'])
def test_no_images(folder, nothing):
    (folder / 'empty').mkdir()
    with pytest.raises(UserError, match='found no image'):
        plan('images', nothing)
    for unset in (dict(out=''), dict(inputs=['images', ''])):  # as shell variables
        with pytest.raises(UserError, match='empty string'):
            plan(*unset.pop('inputs', ['images']), **unset)


@pytest.mark.parametrize('out', ['images/notes.txt', 'images/notes.txt/below', '/proc/nowhere'])
def test_where_nothing_can_be_written(folder, out):
    with pytest.raises(UserError, match=f'cannot write to {out} .*use another --out'):
        require_writable(out)


@pytest.mark.parametrize('other', ['images/grey.png', '{}/grey.png', 'images/../images/grey.png'])
def test_a_file_named_in_two_ways_is_one(folder, other):
    assert len(plan('images/grey.png', other.format(folder))) == 1
    assert plan('images', other.format(folder)) == ALL
    sources = plan_files(['images', other.format(folder)], 'out', ENDINGS, is_image)
    assert [each.path for each in sources if each.given] == ['images/grey.png']
