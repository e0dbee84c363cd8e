"""Properties of the backbone over images, archs and memory layouts that hypothesis draws.

The cases are the same in every run.
"""

import copy
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmcloformer import CloFormer
from mmcloformer.models import ARCHS
from tests.archs import SEVERAL_BRANCHES, randomized

CASES = 32
MANY_CASES = 200

FORMATS = (torch.contiguous_format, torch.channels_last)
VIEWS = {
    'contiguous': lambda x: x,
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'transposed': lambda x: x.mT.contiguous().mT,
    'crop': lambda x: F.pad(x, (3, 2, 1, 4))[..., 1:-4, 3:-2],
    'every other pixel': lambda x: x.repeat_interleave(2, 3)[..., ::2],
}
FILLS = {
    'noise': torch.randn,
    'black': torch.zeros,
    'bright': lambda *shape: torch.full(shape, 255.0),
}


class Case(NamedTuple):
    arch: str
    out_indices: tuple[int, ...]
    shape: tuple[int, int, int, int]
    fill: str
    view: str
    weights: torch.memory_format

    def build(self, make):
        arch = SEVERAL_BRANCHES if self.arch == 'several branches' else self.arch
        torch.manual_seed(0)
        return make(arch, out_indices=self.out_indices)

    def images(self):
        torch.manual_seed(1)
        return FILLS[self.fill](*self.shape)


def draw_cases(largest):
    """Draw cases, mostly of small sides: they cost little, and their maps shrink to a pixel."""
    small = st.integers(1, 48)
    sides = small | small | st.integers(49, largest // 3) | st.integers(largest // 3, largest)
    return st.builds(
        Case,
        arch=st.sampled_from([*ARCHS, 'several branches']),
        out_indices=st.sets(st.integers(0, 3), min_size=1).map(
            lambda chosen: tuple(sorted(chosen))
        ),
        shape=st.tuples(st.integers(1, 3), st.just(3), sides, sides),
        fill=st.sampled_from([*FILLS]),
        view=st.sampled_from([*VIEWS]),
        weights=st.sampled_from(FORMATS),
    )


def assert_maps(outs, backbone, case):
    batch, _, height, width = case.shape
    assert len(outs) == len(case.out_indices)
    for out, channels, stride in zip(outs, backbone.out_channels, backbone.out_strides):
        assert out.shape == (batch, channels, -(-height // stride), -(-width // stride))
        assert out.isfinite().all()


def assert_close(outs, expected, tolerance):
    for out, reference in zip(outs, expected):
        assert (out - reference).norm() <= tolerance * reference.norm()


@torch.no_grad()
def check_inference(case, deploy=False):
    """A batch in any layout gives what its images give one by one, contiguous."""
    backbone = case.build(randomized)
    if deploy:
        backbone.switch_to_deploy()
    images = case.images()
    expected = [torch.cat(maps) for maps in zip(*(backbone(image[None]) for image in images))]
    outs = backbone.to(memory_format=case.weights)(VIEWS[case.view](images))
    assert_maps(outs, backbone, case)
    # Of one colour, the norms leave little but rounding.
    assert_close(outs, expected, 1e-5 if case.fill == 'noise' else 1e-4)


def check_deploy(case):
    check_inference(case, deploy=True)


def check_training(case):
    """In any layout the same maps; a finite gradient for all that is to learn."""
    backbone = case.build(CloFormer).train()
    images = case.images()
    batch, _, height, width = case.shape
    coarsest = 4 * 2 ** case.out_indices[-1]
    if batch * -(-height // coarsest) * -(-width // coarsest) == 1:
        # That is BatchNorm's: there is no variance of one value.
        with pytest.raises(ValueError, match='more than 1 value'):
            backbone(images)
        return
    torch.manual_seed(2)
    expected = copy.deepcopy(backbone)(images)
    torch.manual_seed(2)
    outs = backbone.to(memory_format=case.weights)(VIEWS[case.view](images))
    assert_maps(outs, backbone, case)
    if case.fill == 'noise':  # Of one colour, batch statistics leave nothing but rounding.
        assert_close(outs, expected, 1e-3)
    sum(out.square().mean() for out in outs).backward()
    for name, parameter in backbone.named_parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all(), name
    assert all(value.isfinite().all() for value in backbone.buffers())


def try_cases(check, cases, largest):
    sizes = set()

    @settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(draw_cases(largest))
    def try_case(case):
        sizes.add(case.shape[2:])
        check(case)

    try_case()
    assert len(sizes) >= cases // 2  # Of those that were drawn, hypothesis may repeat some.


@pytest.mark.parametrize('check', [check_inference, check_deploy, check_training])
def test_any_small_image(check):
    try_cases(check, CASES, largest=160)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('check', 'largest'), [(check_inference, 700), (check_deploy, 700), (check_training, 256)]
)
def test_any_image(check, largest):
    try_cases(check, MANY_CASES, largest)


FROZEN_BY_HAND = """
import sys
import torch
from mmcloformer import CloFormer
from tests.archs import SEVERAL_BRANCHES
rules = dict(
    body=lambda name: not name.startswith('stem'),
    norms=lambda name: 'norm' in name,
    shifts=lambda name: name.endswith('norm.bias'),
)
compiled, *chosen = sys.argv[1:]
for rule in chosen:
    print(rule, flush=True)
    backbone = CloFormer(SEVERAL_BRANCHES)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(rules[rule](name))
    model = backbone
    if compiled == 'compiled':
        model = torch.compile(backbone, backend='aot_eager', fullgraph=True)
    sum(out.square().sum() for out in model(torch.randn(2, 3, 65, 97))).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
"""


@pytest.mark.parametrize(
    'arguments',
    [
        ('eager', 'body', 'norms', 'shifts'),
        pytest.param(('compiled', 'body'), marks=pytest.mark.slow),
    ],
)
def test_frozen_by_hand(arguments):
    """In a process of its own: torch's GroupNorm crashes where its input needs no gradient."""
    command = [sys.executable, '-c', FROZEN_BY_HAND, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
