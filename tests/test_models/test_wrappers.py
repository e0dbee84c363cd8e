"""What frameworks wrap around modules: hooks, recomputation, replaced layers, transforms."""

import gc
import re

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.utils import parametrizations
from torch.utils._pytree import tree_leaves

from mmcloformer import CloFormer
from mmcloformer.models import inference
from mmcloformer.models.deploy import DeployError
from mmcloformer.models.layers import AttnConv, Block, CloAttention, ConvFFN, PooledAttention
from tests.archs import SEVERAL_BRANCHES, randomized


@pytest.fixture
def image():
    return torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(0))


def build(**kwargs):
    torch.manual_seed(0)
    return CloFormer(SEVERAL_BRANCHES, **{'drop_path_rate': 0.0, **kwargs})


def gradients(backbone, image):
    sum(out.square().mean() for out in backbone(image)).backward()
    return [parameter.grad for parameter in backbone.parameters()]


def modules_of(backbone, *types):
    return [module for module in backbone.modules() if isinstance(module, types)]


@pytest.mark.parametrize('learns', [True, False])
@pytest.mark.parametrize('arch', ['xxs', SEVERAL_BRANCHES])
def test_every_block_is_called_once(arch, learns):
    backbone = CloFormer(arch).train(learns)
    blocks = modules_of(backbone, Block)
    called = []
    for block in blocks:
        block.register_forward_hook(lambda module, *_: called.append(module))
    with torch.set_grad_enabled(learns):
        backbone(torch.randn(2, 3, 64, 64))
    assert called == blocks


HOOKS = {
    'each module': lambda backbone, keep: [
        module.register_forward_hook(lambda module, args, out: keep(args, out))
        for module in backbone.modules()
    ],
    'each input': lambda backbone, keep: [
        module.register_forward_pre_hook(lambda module, args: keep(args))
        for module in backbone.modules()
    ],
    'one kind': lambda backbone, keep: [
        module.register_forward_hook(lambda module, args, out: keep(args, out))
        for module in modules_of(backbone, nn.Conv2d)
    ],
    'all modules there are': lambda backbone, keep: [
        register_module_forward_hook(lambda module, args, out: keep(args, out))
    ],
    'all inputs there are': lambda backbone, keep: [
        register_module_forward_pre_hook(lambda module, args: keep(args))
    ],
}


@pytest.mark.parametrize('register', HOOKS)
@pytest.mark.parametrize(
    ('form', 'out_indices'),
    [('train', (0, 1, 2, 3)), ('train', (1, 2)), ('eval', (0,)), ('eval', (0, 1, 2, 3)),
     ('inference', (0, 1, 2, 3)), ('deploy', (0, 1, 2, 3))],
)  # fmt: skip
def test_what_a_hook_keeps_stays_as_it_was(image, monkeypatch, form, out_indices, register):
    """And it sees whole maps, whatever the forward pass would do for large ones."""
    backbone = build(out_indices=out_indices).train(form == 'train')
    if form == 'deploy':
        backbone.switch_to_deploy()
    kept = []

    def keep(*values):
        kept.extend((x, x.clone()) for x in tree_leaves(values) if torch.is_tensor(x))

    hooks = HOOKS[register](backbone, keep)
    try:
        with torch.set_grad_enabled(form in ('train', 'eval')):
            backbone(image[:1])
            calls = len(kept)
            monkeypatch.setattr(inference, 'MAX_HIDDEN_BYTES', 20_000)
            backbone(image[:1])
    finally:
        for hook in hooks:
            hook.remove()
    assert calls > 25
    assert len(kept) == 2 * calls
    assert all(torch.equal(x, copy) for x, copy in kept)


def test_full_backward_hooks_on_every_module(image):
    hooked, expected = build(), gradients(build(), image)
    called = set()
    for module in hooked.modules():
        module.register_full_backward_pre_hook(lambda module, grads: None)
        module.register_full_backward_hook(lambda module, *_: called.add(module))
    assert all(map(torch.equal, gradients(hooked, image), expected))
    types = (Block, CloAttention, AttnConv, PooledAttention, ConvFFN, nn.Conv2d)
    assert called >= {*modules_of(hooked, *types)}


def test_activation_checkpointing_recomputes_every_block(image):
    wrapped, expected = build(norm_eval=True), gradients(build(norm_eval=True), image)
    calls = []
    blocks = modules_of(wrapped, Block)
    for block in blocks:
        block.register_forward_pre_hook(lambda module, *_: calls.append(module))
    apply_activation_checkpointing(wrapped, check_fn=lambda module: isinstance(module, Block))
    for found, reference in zip(gradients(wrapped, image), expected):
        torch.testing.assert_close(found, reference)
    assert all(calls.count(block) == 2 for block in blocks)
    wrapped.load_state_dict(build().state_dict())


@pytest.mark.parametrize('activation', [nn.Sigmoid(), nn.Softplus(), nn.ReLU(inplace=True)])
def test_a_replaced_projection_is_differentiated(image, activation):
    def replace():
        backbone = build()
        for module in modules_of(backbone, CloAttention):
            module.proj = nn.Sequential(module.proj, activation)
        for module in modules_of(backbone, ConvFFN):
            module.fc2 = nn.Sequential(module.fc2, activation)
        return backbone

    backbone = replace().double().eval()
    parameter = backbone.stages[0][0].attn.proj[0].bias
    image = image.double()

    def loss():
        return sum(out.square().mean() for out in backbone(image))

    (slope,) = torch.autograd.grad(loss(), parameter)
    step = 1e-6 * torch.randn_like(parameter)
    with torch.no_grad():
        parameter.add_(step)
        above = loss()
        parameter.sub_(2 * step)
        below = loss()
    torch.testing.assert_close(above - below, 2 * (slope * step).sum(), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize('name', ['attn', 'ffn', 'norm1', 'norm2'])
def test_identities_in_place_of_parts_do_not_corrupt_inference(image, name):
    """A branch that returns its input must not be written over."""
    backbone = build().eval()
    for block in modules_of(backbone, Block):
        if name != 'ffn' or not isinstance(block.shortcut, nn.Sequential):
            setattr(block, name, nn.Identity())
    expected = backbone(image)
    with torch.no_grad():
        outs = backbone(image)
    for out, reference in zip(outs, expected):
        torch.testing.assert_close(out, reference, rtol=1e-4, atol=1e-5)


class Cached(nn.Module):
    """Returns one stored map again and again, as a replaced part may."""

    def forward(self, x):
        self.kept = getattr(self, 'kept', x.detach().clone())
        return self.kept


class SpatialMean(nn.Module):
    """Reads the whole map, so that strips of it would give another result."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        x = self.conv(x)
        return x - x.mean((2, 3), keepdim=True)


REPLACED = {
    'ffn.fc1': SpatialMean,
    'ffn.dwconv': SpatialMean,
    'ffn.fc2': SpatialMean,
    'attn.proj': SpatialMean,
    'attn.pooled.q': SpatialMean,
    'attn': lambda part: Cached(),
}


@pytest.mark.parametrize('name', REPLACED)
def test_replaced_parts_compute_the_same_without_gradients(name, image, monkeypatch):
    monkeypatch.setattr(inference, 'MAX_HIDDEN_BYTES', 20_000)
    backbone = randomized('xxs')
    for block in modules_of(backbone, Block):
        parent, _, child = name.rpartition('.')
        owner = block.get_submodule(parent)
        setattr(owner, child, REPLACED[name](getattr(owner, child)))
    image = image[:1]
    expected = backbone(image)
    for _ in range(2):
        with torch.no_grad():
            outs = backbone(image)
        for out, reference in zip(outs, expected):
            torch.testing.assert_close(out, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('change', [parametrizations.spectral_norm, SpatialMean])
@pytest.mark.parametrize('name', ['attn.local.0.qkv', 'attn.pooled.kv', 'ffn.fc1'])
def test_the_deploy_form_refuses_changed_convolutions(change, name):
    backbone = randomized('xxs')
    parent, _, child = name.rpartition('.')
    owner = backbone.stages[2][3].get_submodule(parent)
    setattr(owner, child, change(getattr(owner, child)))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(DeployError, match=re.escape(f'stages.2.3.{name}')):
        backbone.eval().switch_to_deploy()
    assert not backbone.deployed
    after = backbone.state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())


def test_built_on_the_meta_device(image):
    source = randomized()
    with torch.device('meta'):
        backbone = CloFormer(SEVERAL_BRANCHES)
    assert all(parameter.is_meta for parameter in backbone.parameters())
    backbone.to_empty(device='cpu')
    backbone.load_state_dict(source.state_dict())
    rates = [block.drop_path.drop_prob for block in modules_of(backbone, Block)]
    assert rates == [block.drop_path.drop_prob for block in modules_of(source, Block)]
    assert all(map(torch.equal, backbone.eval()(image), source(image)))


def test_built_of_fake_tensors():
    """As tools do that estimate the memory of a training."""
    with FakeTensorMode():
        outs = CloFormer(SEVERAL_BRANCHES)(torch.empty(2, 3, 65, 97))
        sum(out.sum() for out in outs).backward()


# torch's fused attention for CPUs has no batching rule.
@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_gradients_per_sample(image):
    backbone = randomized()
    parameters = {name: p.detach() for name, p in backbone.named_parameters()}

    def loss(parameters, single):
        outs = functional_call(backbone, (parameters, dict(backbone.named_buffers())), single[None])
        return sum(out.square().mean() for out in outs)

    per_sample = vmap(grad(loss), (None, 0))(parameters, image)
    for index, single in enumerate(image):
        backbone.zero_grad()
        loss(dict(backbone.named_parameters()), single).backward()
        for name, parameter in backbone.named_parameters():
            error = (per_sample[name][index] - parameter.grad).norm()
            assert error <= 1e-4 * parameter.grad.norm() + 1e-7, name


# torch's fused attention for CPUs has no forward-mode and no second derivative; the plain one has.
FUSED_LIMITS = (NotImplementedError, RuntimeError)


@pytest.fixture
def no_garbage_collection():
    """The first jvp of a process has torch parse source code. If the collector ends the workers of
    a loader meanwhile, Python 3.11 raises "AST constructor recursion depth mismatch"."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures('no_garbage_collection')
def test_forward_mode_derivative_with_the_plain_attention(image):
    backbone = randomized().double()
    image, direction = image.double(), torch.randn_like(image, dtype=torch.double)
    with pytest.raises(FUSED_LIMITS, match='scaled_dot_product_flash_attention_for_cpu'):
        jvp(backbone, (image,), (direction,))
    with sdpa_kernel(SDPBackend.MATH):
        _, tangents = jvp(backbone, (image,), (direction,))
        step = 1e-5
        above, below = backbone(image + step * direction), backbone(image - step * direction)
    for tangent, high, low in zip(tangents, above, below):
        torch.testing.assert_close(tangent, (high - low) / (2 * step), rtol=1e-5, atol=1e-6)


def test_second_derivative_with_the_plain_attention(image):
    backbone = randomized().double()
    parameter = backbone.stem.proj.bias

    def slope():
        loss = sum(out.square().mean() for out in backbone(image.double()))
        return torch.autograd.grad(loss, parameter, create_graph=True)[0].square().sum()

    with pytest.raises(FUSED_LIMITS, match='scaled_dot_product_flash_attention_for_cpu'):
        torch.autograd.grad(slope(), parameter)
    with sdpa_kernel(SDPBackend.MATH):
        (curvature,) = torch.autograd.grad(slope(), parameter)
        step = 1e-5 * torch.randn_like(parameter)
        parameter.data += step
        above = slope()
        parameter.data -= 2 * step
        torch.testing.assert_close(
            above - slope(), 2 * (curvature * step).sum(), rtol=1e-3, atol=1e-12
        )


def test_torch_export(image):
    backbone = randomized()
    program = torch.export.export(backbone, (image,))
    for out, expected in zip(program.module()(image), backbone(image)):
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
