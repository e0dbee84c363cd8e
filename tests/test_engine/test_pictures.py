"""`tools/test.py --show-dir`: a picture of every image, with images of one name in two folders."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.models import RetinaNet
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from mmcloformer.engine.pictures import _to_rgb, draw_predictions, find_root

NAMES = ['a/1.png', 'b/1.png', 'b/below/1.png', 'b/2.png']


class Images:
    """A data set, as far as the hooks ask."""

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
        Image.new('RGB', (64, 48), (50 * level, 0, 0)).save(file)
    return tmp_path


def detection(path):
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0), scores=torch.zeros(0))
    return DetDataSample(metainfo=dict(img_path=path), pred_instances=none)


def segmentation(path):
    labels = PixelData(data=torch.zeros(1, 48, 64, dtype=torch.long))
    return SegDataSample(metainfo=dict(img_path=path), pred_sem_seg=labels)


def classification(path):
    sample = DataSample(metainfo=dict(img_path=path) if path else {})
    return sample.set_pred_label(0).set_pred_score(torch.ones(1))


HOSTS = dict(
    mmdet=('DetVisualizationHook', DetLocalVisualizer, detection),
    mmseg=('SegVisualizationHook', SegLocalVisualizer, segmentation),
    mmpretrain=('VisualizationHook', UniversalVisualizer, classification),
)


def draw(scope, work_dir, paths, folder='pictures', hook=None):
    """Draw in two batches, as `tools/test.py` sets the config up; returns the pictures."""
    kind, visualizer, sample = HOSTS[scope]
    init_default_scope(scope)
    drawer = visualizer.get_instance('drawing')
    drawer.dataset_meta = dict(classes=['one'], palette=[[0, 255, 0]])
    hooks = dict(visualization=dict(type=kind) if hook is None else hook)
    cfg = Config(dict(default_scope=scope, default_hooks=hooks))
    draw_predictions(cfg, folder)
    built = HOOKS.build(cfg.default_hooks.visualization)
    runner = SimpleNamespace(
        work_dir=str(work_dir),
        timestamp='run',
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
        inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).flip(1)  # in BGR
        outputs = [sample(path) for path in paths[batch : batch + 2]]
        built.after_test_iter(runner, batch // 2, dict(inputs=inputs), outputs)
    found = Path(work_dir, 'run', folder)
    return {str(file.relative_to(found)): file for file in found.rglob('*.png')}


EXPECTED = dict(
    mmdet=NAMES,
    mmseg=['a/test_1.png_1.png', 'b/test_1.png_2.png', 'b/below/test_1.png_3.png',
           'b/test_2.png_4.png'],
    mmpretrain=['a/1.png_0.png', 'b/1.png_0.png', 'b/below/1.png_0.png', 'b/2.png_0.png'],
)  # fmt: skip


@pytest.mark.parametrize('scope', HOSTS)
@pytest.mark.parametrize('named', [False, True])
def test_pictures_keep_the_folders_of_the_images(scope, named, root):
    kind = HOSTS[scope][0]
    hook = dict(type=f'{scope}.{kind}') if named else None
    pictures = draw(scope, root, [str(root / 'images' / name) for name in NAMES], hook=hook)
    assert sorted(pictures) == sorted(EXPECTED[scope])
    if scope != 'mmseg':  # There the labels cover the image.
        reds = [np.array(Image.open(pictures[name]))[-1, -1, 0] for name in EXPECTED[scope]]
        assert reds == pytest.approx([0, 50, 100, 150], abs=8)


@pytest.mark.parametrize('scope', HOSTS)
def test_images_of_one_folder_are_drawn_into_one(scope, root, monkeypatch):
    monkeypatch.chdir(root)
    pictures = draw(scope, root, ['images/b/1.png', 'images/b/2.png'], folder=str(root / 'out'))
    assert len(pictures) == 2
    assert all('/' not in name for name in pictures)


def test_colours_and_versions_of_an_image(tmp_path):
    """mmpretrain's batches are in BGR; test-time augmentation has a batch per version."""
    blue = torch.tensor([200, 0, 0], dtype=torch.uint8)[:, None, None].expand(1, 3, 48, 64)
    for inputs in (blue, [blue.flip(1), blue]):
        image = _to_rgb(inputs, 0)
        assert image.shape == (48, 64, 3)
        assert image[0, 0].tolist() == [0, 0, 200]


def test_images_without_a_path(root):
    """mmpretrain's hook names their pictures by number."""
    pictures = draw('mmpretrain', root, [None] * 3)
    assert sorted(pictures) == ['0_0.png', '1_0.png', '2_0.png']


@pytest.mark.parametrize(
    'hooks',
    [
        {},
        dict(default_hooks=None),
        dict(default_hooks={}),
        dict(default_hooks=dict(visualization=None)),
    ],
)
@pytest.mark.parametrize('host', HOSTS)
def test_configs_without_a_visualization_hook(hooks, host):
    cfg = Config(dict(default_scope=host, **hooks))
    draw_predictions(cfg, 'pictures')
    assert cfg.default_hooks.visualization == dict(
        type='PicturesHook', host=host, folder='pictures'
    )


@pytest.mark.parametrize(
    ('model', 'hook'),
    [(RetinaNet, DetVisualizationHook), (EncoderDecoder, SegVisualizationHook)],
)
def test_classes_in_place_of_names(model, hook):
    """As in pure-Python configs, which set no scope."""
    hooks = dict(visualization=dict(type=hook, wait_time=1, interval=9))
    cfg = Config(dict(default_scope=None, model=dict(type=model), default_hooks=hooks))
    draw_predictions(cfg, 'pictures')
    host = model.__module__.partition('.')[0]
    assert cfg.default_hooks.visualization == dict(
        type='PicturesHook', host=host, folder='pictures', wait_time=1
    )


def test_the_settings_of_the_hosts_hook_are_kept():
    hook = dict(type='DetVisualizationHook', score_thr=0.7, backend_args=dict(backend='local'))
    cfg = Config(dict(default_scope='mmdet', default_hooks=dict(visualization=hook)))
    draw_predictions(cfg, 'pictures')
    found = cfg.default_hooks.visualization
    assert (found.pred_score_thr, found.backend_args) == (0.7, dict(backend='local'))


class OwnHook(SegVisualizationHook):
    pass


def test_a_hook_of_another_class_is_kept():
    hooks = dict(visualization=dict(type=OwnHook))
    cfg = Config(dict(default_scope='mmseg', default_hooks=hooks, visualizer={}))
    draw_predictions(cfg, 'pictures')
    assert cfg.default_hooks.visualization == dict(type=OwnHook, draw=True, interval=1)
    assert cfg.visualizer.vis_backends[0].img_save_dir == '../pictures'


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
