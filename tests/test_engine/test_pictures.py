"""`tools/test.py --show-dir`: a picture of every image, with images of one name in two folders."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS, VISUALIZERS
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from mmcloformer.engine.pictures import draw_predictions, fill_palette, find_root
from mmcloformer.errors import ConfigError

NAMES = ['a/1.png', 'b/1.png', 'b/below/1.png', 'b/2.png']


class Images:
    """A data set, as far as the hook asks."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return dict(img_path=self.paths[index]) if self.paths[index] else {}


@pytest.fixture
def root(tmp_path):
    for level, name in enumerate(NAMES):
        file = tmp_path / 'images' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (64, 48), (50 * level, 0, 200)).save(file)
    return tmp_path


def detection(path, label=0):
    boxes = dict(bboxes=torch.tensor([[0.0, 0, 9, 9]]), labels=torch.tensor([label]))
    found = InstanceData(**boxes, scores=torch.tensor([0.5]))
    return DetDataSample(metainfo=dict(img_path=path), pred_instances=found)


def segmentation(path):
    labels = PixelData(data=torch.zeros(1, 48, 64, dtype=torch.long))
    return SegDataSample(metainfo=dict(img_path=path), pred_sem_seg=labels)


def classification(path):
    sample = DataSample(metainfo=dict(img_path=path) if path else {})
    return sample.set_pred_label(0).set_pred_score(torch.ones(1))


HOSTS = dict(
    mmdet=(DetLocalVisualizer, detection),
    mmseg=(SegLocalVisualizer, segmentation),
    mmpretrain=(UniversalVisualizer, classification),
)


def draw(host, work_dir, paths, folder='pictures', tta=False, names=('one',), **hook):
    """Draw in two batches, as `tools/test.py` sets the config up; returns the pictures."""
    visualizer, sample = HOSTS[host]
    drawer = visualizer.get_instance('drawing')
    drawer.dataset_meta = dict(classes=names, palette=[(0, 255, 0)])
    cfg = Config(dict(default_scope=host, default_hooks=dict(visualization=hook)))
    draw_predictions(cfg, folder)
    built = HOOKS.build(cfg.custom_hooks[0])
    runner = SimpleNamespace(
        log_dir=str(work_dir / 'run'),
        visualizer=drawer,
        logger=MMLogger.get_current_instance(),
        test_dataloader=SimpleNamespace(dataset=Images(paths)),
    )
    built.before_test(runner)
    for batch in range(0, len(paths), 2):
        images = [
            np.array(Image.open(path)) if path else np.zeros((48, 64, 3), np.uint8)
            for path in paths[batch : batch + 2]
        ]
        inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).flip(1)  # In BGR.
        inputs = [inputs * 0, inputs] if tta else inputs
        outputs = [sample(path) for path in paths[batch : batch + 2]]
        built.after_test_iter(runner, batch // 2, dict(inputs=inputs), outputs)
    found = Path(work_dir, 'run', folder)
    return {
        str(file.relative_to(found)): np.array(Image.open(file)) for file in found.rglob('*.png')
    }


@pytest.mark.parametrize(
    ('host', 'tta'), [('mmdet', False), ('mmseg', False), ('mmpretrain', False), ('mmpretrain', 1)]
)
def test_pictures_have_the_names_folders_and_colours_of_the_images(host, tta, root):
    pictures = draw(host, root, [str(root / 'images' / name) for name in NAMES], tta=tta)
    assert sorted(pictures) == sorted(NAMES)
    if host != 'mmseg':  # There the labels cover the image.
        corners = [pictures[name][-1, -1].tolist() for name in NAMES]
        expected = [[50 * level, 0, 200] for level in range(4)]
        assert np.array(corners) == pytest.approx(np.array(expected), abs=8)


@pytest.mark.parametrize('host', HOSTS)
def test_images_of_one_folder_are_drawn_into_one(host, root, monkeypatch):
    monkeypatch.chdir(root)
    pictures = draw(host, root, ['images/b/1.png', 'images/b/2.png'], folder=str(root / 'out'))
    assert sorted(pictures) == ['1.png', '2.png']


def test_a_palette_of_fewer_colours_than_classes(root, monkeypatch):
    monkeypatch.setitem(HOSTS, 'mmdet', (DetLocalVisualizer, partial(detection, label=1)))
    pictures = draw('mmdet', root, [str(root / 'images/b/1.png')], names=('one', 'two'))
    assert list(pictures) == ['1.png']


def test_a_palette_keeps_its_colours():
    filled = fill_palette([[1, 2, 3]], 3)
    assert filled[0] == (1, 2, 3)
    assert len(set(filled)) == 3
    for whole in ('random', (1, 2, 3)):  # A name, and one colour for all classes.
        assert fill_palette(whole, 3) == whole


def test_images_without_a_path_are_numbered(root):
    assert sorted(draw('mmpretrain', root, [None] * 3)) == ['1.png', '2.png', '3.png']


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('name', ['a.mpo', 'a'])
def test_formats_that_cannot_be_written_are_drawn_as_png(host, name, root):
    image = root / 'images' / NAMES[0]
    assert [*draw(host, root, [str(image.rename(root / name))])] == [f'{name}.png']


def test_the_settings_of_the_hosts_hook_hold(root):
    image = [str(root / 'images' / NAMES[0])]
    settings = dict(type='DetVisualizationHook', backend_args=dict(backend='local'))
    drawn, hidden = (
        draw('mmdet', root / str(score), image, score_thr=score, **settings)['1.png']
        for score in (0.4, 0.6)
    )
    assert len(np.unique(hidden.reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 1


@pytest.mark.parametrize('hooks', [{}, dict(default_hooks=None), dict(custom_hooks=None)])
def test_configs_without_hooks(hooks):
    cfg = Config(dict(default_scope='mmseg', **hooks))
    draw_predictions(cfg, 'pictures')
    assert cfg.custom_hooks == [dict(type='PicturesHook', folder='pictures')]
    # mmengine's own cannot draw samples. Pure-Python configs have no scope in which to look it up.
    assert VISUALIZERS.get(cfg.visualizer.type) is SegLocalVisualizer
    with pytest.raises(ConfigError, match='the config needs a model of mmdet'):
        draw_predictions(Config({}), 'pictures')


@pytest.mark.parametrize(
    ('paths', 'root'),
    [
        (['/x/a/1.png', '/x/b/1.png'], '/x'),
        (['/x/a/1.png'], '/x/a'),
        (['/x/1.png', '/x/b/1.png'], '/x'),
        (['s3://bucket/a/1.png', 's3://bucket/b/1.png'], 's3:/bucket'),
        ([None], '/'),
    ],
)
def test_the_folder_of_all_images(paths, root):
    assert find_root(Images(paths)).endswith(root)
    assert find_root(object()) == '/'


def test_several_processes_are_told(monkeypatch, root):
    monkeypatch.setattr('mmcloformer.engine.pictures.get_world_size', lambda: 2)
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: warnings.append(text))
    draw('mmdet', root, [str(root / 'images' / NAMES[0])])
    assert '--show-dir draws the images of the first of 2 processes only' in warnings[0]
