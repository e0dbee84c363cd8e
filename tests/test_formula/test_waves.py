import math

import numpy as np
import pytest
import torch

from mmcloformer.formula.waves import FIELDS, MAX_CONTOURS, NUM_FIELDS, draw_instance, render

OF_THE_CLASS = ('frequency', 'amplitude', 'contours', 'inner', 'twist')


def field(drawing, name):
    start = sum([*FIELDS.values()][: [*FIELDS].index(name)])
    return drawing[..., start : start + FIELDS[name]]


def drawings(count=6, seed=0):
    return torch.from_numpy(np.stack([draw_instance(seed, i % 3, i // 3) for i in range(count)]))


def circle(**changes):
    """One black circle on white ground, in the middle of the image."""
    values = dict(
        frequency=[1, 1], contours=[1], inner=[1], aspect=[1], reach=[0.5], ground=[1] * 3
    )
    values |= dict(thickness=[0.1]) | changes
    drawing = torch.zeros(1, NUM_FIELDS)
    for name, value in values.items():
        field(drawing, name)[:] = torch.tensor(value)
    return drawing


def test_the_same_numbers_give_the_same_image():
    again = render(drawings(), 48)
    torch.testing.assert_close(render(drawings(), 48), again, rtol=0, atol=0)
    assert again.shape == (6, 3, 48, 48)
    assert 0 <= again.min() < again.max() <= 255
    assert (drawings(seed=1) != drawings()).any()


def test_an_image_does_not_depend_on_its_batch():
    alone = torch.cat([render(drawing[None], 48) for drawing in drawings()])
    torch.testing.assert_close(alone, render(drawings(), 48), rtol=1e-5, atol=1e-2)


def test_a_class_is_its_shape():
    first, second = (np.stack([draw_instance(0, label, i) for i in range(5)]) for label in (0, 1))
    for name in OF_THE_CLASS:
        assert (field(first, name) == field(first, name)[0]).all()
        assert (field(first, name)[0] != field(second, name)[0]).any()
    for name in set(FIELDS) - {*OF_THE_CLASS}:
        assert len(np.unique(field(first, name)[:, 0])) == 5


@pytest.mark.parametrize('size', [32, 224])
def test_a_circle_has_the_area_of_its_line(size):
    covered = 1 - render(circle(), size)[0, 0] / 255
    # The ring's width times its circumference, of an image of 2 by 2.
    assert covered.mean().item() == pytest.approx(0.1 * 2 * math.pi * 0.5 / 4, rel=0.02)
    assert covered[size // 2, size // 2] == 0
    assert covered[size // 2, int(size * 0.75)] > 0.7


def test_a_line_is_as_thick_where_it_is_steep():
    """Else a wave's flanks would be drawn broader than its crests."""
    wavy = circle(frequency=[8, 1], amplitude=[0.4, 0], reach=[0.7])
    covered = 1 - render(wavy, 512)[0, 0] / 255
    theta = torch.linspace(0, 2 * math.pi, 100_000)
    radius = 0.5 * (1 + 0.4 * torch.sin(8 * theta))
    points = torch.stack([radius * theta.cos(), radius * theta.sin()])
    length = points.diff(dim=1).norm(dim=0).sum()
    assert covered.mean().item() == pytest.approx(0.1 * length.item() / 4, rel=0.1)


def test_as_many_contours_as_asked_for():
    rings = circle(contours=[4], inner=[0.2], thickness=[0.02])
    along = 1 - render(rings, 400)[0, 0, 200, 200:] / 255
    edges = ((along[1:] > 0.5) & (along[:-1] <= 0.5)).sum()
    assert edges == 4 <= MAX_CONTOURS


def test_turning_by_a_quarter_turns_the_image():
    shape = dict(frequency=[3, 5], amplitude=[0.3, 0.2], aspect=[0.7])
    upright, turned = (render(circle(**shape, turn=[turn]), 64)[0] for turn in (0.0, math.pi / 2))
    torch.testing.assert_close(turned, upright.rot90(-1, (1, 2)), rtol=0, atol=0.5)
