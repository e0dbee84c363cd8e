import runpy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image

from mmcloformer import CloFormer
from mmcloformer.analysis.perception import draw, spectrum, view
from mmcloformer.errors import UserError
from tests.conftest import ROOT, TOOLS


@pytest.fixture
def image():
    return torch.randn(1, 3, 96, 70)


def test_looking_changes_nothing(image):
    backbone = CloFormer('xxs').eval()
    before = backbone(image)
    view(backbone, image)
    for a, b in zip(backbone(image), before):
        assert torch.equal(a, b)
    assert not any(module._forward_hooks for module in backbone.modules())


def test_views_have_the_size_of_what_they_show(image):
    views = view(CloFormer('xxs').eval(), image)
    assert [v.weights.shape for v in views] == [(24, 18), (12, 9), (6, 5), (3, 3)]
    assert {v.attention.shape for v in views} == {(3, 3)}
    for v in views:
        assert 0 <= v.weights.min() <= v.weights.max() <= 1
        assert v.attention.mean() == pytest.approx(1)


def test_weights_are_those_that_gate_the_values(image):
    """If all values are one, the local branch outputs its weights."""
    backbone = CloFormer('xxs').eval()
    branch = backbone.stages[1][-1].attn.local[0]
    values = slice(2 * branch.dwconv.out_channels // 3, None)
    with torch.no_grad():
        branch.dwconv.weight[values] = 0
        branch.dwconv.bias[values] = 1
    outputs = []
    branch.register_forward_hook(lambda module, args, output: outputs.append(output.clone()))
    expected = view(backbone, image)[1].weights
    assert np.allclose(outputs[0].abs().mean(1)[0].numpy(), expected, atol=1e-6)


def test_attention_is_that_which_mixes_the_values(image):
    """With values of one at a single pooled position, the output is its attention weight."""
    backbone = CloFormer('xxs').eval()
    pooled = backbone.stages[2][-1].attn.pooled
    dims = pooled.kv.out_channels // 2
    outputs = []

    def one_position(module, args, output):
        output[:, dims:] = 0
        output[:, dims:, 1, 2] = 1
        return output

    pooled.kv.register_forward_hook(one_position)
    pooled.register_forward_hook(lambda module, args, output: outputs.append(output.clone()))
    attention = view(backbone, image)[2].attention
    assert outputs[0].mean().item() * attention.size == pytest.approx(attention[1, 2], rel=1e-4)


def test_spectrum_tells_smooth_from_rough():
    noise = torch.randn(1, 64, 64, 64)
    smooth = F.avg_pool2d(noise, 5, stride=1, padding=2)
    assert np.abs(spectrum(noise)).max() < 0.05
    assert spectrum(smooth)[-1] < -0.5
    assert spectrum(noise - smooth)[-1] > 0.3


@pytest.mark.parametrize('arch', ['xxs-global', 'xxs-local'])
def test_an_ablation_lacks_a_branch(arch, image):
    views = view(CloFormer(arch, out_indices=(0, 2)).eval(), image)
    assert len(views) == 3
    assert all((v.weights is None) == (arch == 'xxs-global') for v in views)
    assert all((v.global_spectrum is None) == (arch == 'xxs-local') for v in views)
    draw(views, np.zeros((96, 70, 3), np.uint8)).canvas.draw()


def test_the_tool(run_tool, tmp_path, shapes):
    backbone = CloFormer('xs')
    torch.save(backbone.state_dict(), tmp_path / 'backbone.pth')
    picture = next((shapes / 'coco/val2017').iterdir())
    args = (ROOT / 'configs/cloformer_xs_imagenet.py', tmp_path / 'backbone.pth')
    run_tool('visualize.py', *args, picture, '--out', tmp_path / 'new/sheet.png')
    assert min(Image.open(tmp_path / 'new/sheet.png').size) > 500
    text = run_tool('visualize.py', *args, args[0], '--out', tmp_path / 'x.png', code=1)
    assert f'error: {args[0]} is not an image' in text


@pytest.fixture(scope='module')
def read_image():
    return runpy.run_path(str(TOOLS['visualize.py']))['read_image']


def test_images_are_read_as_for_predictions(read_image, tmp_path):
    """Images are rotated by their EXIF tag, and 16 bits are scaled to 8."""
    grey = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
    Image.fromarray(grey).save(tmp_path / 'deep.png')
    deep = read_image(str(tmp_path / 'deep.png'))
    assert np.array_equal(deep, np.repeat(grey[..., None] >> 8, 3, 2))
    colours = Image.fromarray(np.repeat(np.uint8([[[200, 100, 0]], [[0, 100, 200]]]), 16, 1))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # To be turned right by 90 degrees.
    colours.save(tmp_path / 'held.png', exif=exif)
    held = read_image(str(tmp_path / 'held.png'))
    assert held.shape == (16, 2, 3)
    assert held[0].tolist() == [[0, 100, 200], [200, 100, 0]]


def test_images_that_cannot_be_read(read_image, tmp_path):
    Image.new('RGB', (64, 64)).save(tmp_path / 'cut.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'cut.png').read_bytes()[:-20])
    for path, reason in ((tmp_path / 'cut.png', 'is cut short'), (tmp_path, 'Is a directory')):
        with pytest.raises(UserError, match=reason):
            read_image(str(path))
