"""The calls that a forward pass sends to a GPU, counted without one.

At 224x224 the CPU takes longer to start the kernels than the GPU to run them.
"""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmcloformer import CloFormer

# The builds of torch 2.6 ask for a CUDA driver even for fake tensors.
pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split('.')[:2])) < (2, 10),
    reason='fake CUDA tensors need a newer torch',
)


class CallCounter(TorchDispatchMode):
    """Counts the operations that start a kernel."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        starts = not func.is_view and func.namespace == 'aten' and 'view' not in func.__name__
        self.calls[func.__name__] += starts
        return func(*args, **(kwargs or {}))


class FusedAttention(TorchFunctionMode):
    """Counts the attention as one call and gives its output the layout of the GPU's kernels."""

    def __init__(self, counter):
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        assert all(x.stride(-1) == 1 for x in args)  # Else the fused kernels do not apply.
        before = self.counter.calls.copy()
        out = torch.empty_like(args[0].transpose(1, 2)).transpose(1, 2)
        self.counter.calls = before + Counter(attention=1)
        return out


def count_calls(model, size, dtype):
    """Count the calls of an inference, in channels_last."""

    def fake(value, dtype):
        value = torch.empty_like(value, dtype=dtype, device='cuda')
        return value.to(memory_format=torch.channels_last) if value.dim() == 4 else value

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        state = {key: fake(value, dtype) for key, value in model.state_dict().items()}
        image = fake(torch.empty(64, 3, *size), dtype)
        with CallCounter() as counter, FusedAttention(counter):
            functional_call(model, state, (image,))
    return counter.calls


@pytest.mark.parametrize(('deploy', 'most'), [(False, 330), (True, 290)])
def test_few_calls_at_224(deploy, most):
    model = CloFormer('xs').eval()
    if deploy:
        model.switch_to_deploy()
    calls = count_calls(model, (224, 224), torch.float16 if deploy else torch.float32)
    assert calls['convolution.default'] == 131
    assert calls['attention'] == 12
    assert calls['clone.default'] == calls['_to_copy.default'] == 0
    assert calls.total() <= most


def test_norms_of_large_maps_use_the_whole_gpu():
    """One thread block per image, as torch's LayerNorm has, would take too long."""
    calls = count_calls(CloFormer('xs').eval(), (800, 1280), torch.float32)
    assert calls['var_mean.correction'] + calls['native_layer_norm.default'] == 29
    assert calls['var_mean.correction'] >= 9 + 6
