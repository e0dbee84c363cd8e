"""The snippets of docs/api.md run in their order."""

import functools
import re
import runpy

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from mmcloformer import CloFormer
from mmcloformer.errors import ConfigError
from tests.conftest import ROOT

XS = 'mmcloformer://cloformer_xs_tiny-imagenet'
SNIPPETS = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/api.md').read_text(), re.S)


def test_the_snippets_run(monkeypatch, tmp_path, capsys):
    pytest.importorskip('skimage')  # Comes with the maintained fork only.
    for folder in ('configs', 'hubconf.py', 'mmcloformer'):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DefaultScope, '_instance_dict', {})  # As in a new process.
    # sahi's functions turn this limit of Pillow off.
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)
    names = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, 'docs/api.md', 'exec'), names)
    assert names['same'].out_channels == names['backbone'].out_channels[1:]
    assert names['labels'].shape == (400, 600)
    assert 'espresso' in capsys.readouterr().out
    check_slices(names['get_sliced_prediction'], names['detector'])


def check_slices(get_sliced_prediction, detector):
    """Four copies of a picture, cut into four, give each of its boxes four times."""
    picture = np.random.randint(0, 256, (128, 128, 3), np.uint8)
    options = dict(overlap_height_ratio=0, overlap_width_ratio=0, perform_standard_pred=False)
    # Boxes are merged only if they are the same.
    options |= dict(
        postprocess_type='NMS',
        postprocess_match_metric='IOU',
        postprocess_match_threshold=1.0,
        verbose=0,
    )

    def boxes(image):
        found = get_sliced_prediction(image, detector, 128, 128, **options)
        return {tuple(np.round(each.bbox.to_xyxy(), 1)) for each in found.object_prediction_list}

    copies = boxes(np.tile(picture, (2, 2, 1)))
    expected = [
        box + np.array([x, y, x, y]) for box in boxes(picture) for x in (0, 128) for y in (0, 128)
    ]
    assert len(expected) > 4
    np.testing.assert_allclose(sorted(copies), sorted(map(tuple, expected)), atol=0.11)


def test_hub_says_which_have_weights():
    with pytest.raises(ConfigError, match='no weights for cloformer_s, only for cloformer_xxs'):
        torch.hub.load(str(ROOT), 'cloformer_s', source='local', pretrained=True)


def test_hub_loads_the_weights_of_the_package():
    hub = functools.partial(torch.hub.load, str(ROOT), 'cloformer_xs', source='local')
    expected = CloFormer('xs', init_cfg=dict(type='Pretrained', checkpoint=XS))
    expected.init_weights()
    found = hub(pretrained=True).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.state_dict().items())
    with pytest.raises(TypeError, match='init_cfg'):
        hub(pretrained=True, init_cfg=None)


def test_the_hub_lists_the_backbones_only():
    # As torch.hub.list, which reads repositories on GitHub only.
    found = runpy.run_path(str(ROOT / 'hubconf.py')).items()
    names = [name for name, value in found if callable(value) and not name.startswith('_')]
    assert sorted(names) == ['cloformer_s', 'cloformer_xs', 'cloformer_xxs']
