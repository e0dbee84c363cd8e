"""docs/finetune.md: every piece of config runs, and the memory it promises is measured."""

import re

import pytest
import torch
from mmengine.config import Config

from mmcloformer import CloFormer
from tests.conftest import ROOT, coco_options

DEMO = ROOT / 'configs' / 'demo' / 'retinanet_cloformer_xxs_shapes.py'
PIECES = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'finetune.md').read_text(), re.S)


def test_every_piece_runs_in_one_training(run_logged, shapes, tmp_path):
    optim_wrapper, custom_hooks, with_cp, frozen = PIECES
    config = tmp_path / 'config.py'
    both = 'model = dict(backbone=dict(with_cp=True, frozen_stages=1, norm_eval=True))\n'
    for piece in (with_cp, frozen):
        for setting in re.findall(r'\w+=\w+(?=[,)])', piece):
            assert setting in both
    config.write_text(f"_base_ = '{DEMO}'\n{optim_wrapper}{custom_hooks}{both}")
    options = [*coco_options(shapes / 'coco'), 'train_cfg.max_epochs=1']
    run_logged('train.py', config, '--cfg-options', *options, work_dir=tmp_path)

    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    # The averages are saved as the weights, and the weights as the averages, without the heads'
    # having moved far in two steps.
    averaged, trained = checkpoint['state_dict'], checkpoint['ema_state_dict']
    name = 'backbone.stages.1.0.attn.proj.weight'
    assert not torch.equal(averaged[name], trained[f'module.{name}'])
    frozen_name = 'backbone.stages.0.0.attn.proj.weight'
    assert torch.equal(averaged[frozen_name], trained[f'module.{frozen_name}'])
    rates = {group['lr'] for group in checkpoint['optimizer']['param_groups']}
    assert len(rates) == 14 - 3  # The stem and the two blocks of the first stage are frozen.
    decays = {group['weight_decay'] for group in checkpoint['optimizer']['param_groups']}
    assert decays == {0, Config.fromfile(DEMO).optim_wrapper.optimizer.weight_decay}

    log = run_logged(
        'test.py', config, tmp_path / 'epoch_1.pth', '--cfg-options', *options,
        'model.test_cfg.score_thr=0', work_dir=tmp_path / 'test',
    )  # fmt: skip
    assert 'coco/bbox_mAP:' in log


@pytest.mark.parametrize('frozen_stages', range(4))
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_frozen_stages_leave_the_others_gradients_as_they_are(frozen_stages, memory_format):
    images = torch.randn(2, 3, 64, 64).to(memory_format=memory_format)
    free = CloFormer('xxs', norm_eval=True).train()
    frozen = CloFormer('xxs', norm_eval=True, frozen_stages=frozen_stages).train()
    frozen.load_state_dict(free.state_dict())
    for backbone in (free, frozen):
        sum(out.square().mean() for out in backbone(images)).backward()
    assert images.grad is None
    expected = dict(free.named_parameters())
    for name, parameter in frozen.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name].grad)
        else:
            assert parameter.grad is None


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU can do it')
def test_mixed_precision_on_a_cpu_is_refused(tool_error, tmp_path):
    for setting in (['--amp'], ['--cfg-options', 'optim_wrapper.type=AmpOptimWrapper']):
        message = tool_error('train.py', DEMO, '--work-dir', tmp_path, *setting)
        assert message.startswith('error: mixed precision (AmpOptimWrapper, --amp) needs a GPU')


@pytest.mark.parametrize(
    ('arch', 'size', 'most'),
    [
        ('xxs', (2, 3, 256, 256), 0.5),
        pytest.param('xs', (1, 3, 800, 1280), 0.4, marks=pytest.mark.slow),
    ],
)
def test_with_cp_saves_memory(arch, size, most):
    plain, recomputed = (peak_of_a_step(arch, size, with_cp) for with_cp in (False, True))
    print(f'\n{arch} at {size}: {plain / 1e6:.0f} MB plain, {recomputed / 1e6:.0f} MB with_cp')
    assert recomputed < most * plain


def peak_of_a_step(arch, size, with_cp):
    """Bytes that torch held at once, above those held before, in one forward and backward pass."""
    backbone, images = CloFormer(arch, with_cp=with_cp), torch.randn(size)

    def step():
        sum(out.square().mean() for out in backbone(images)).backward()

    step()  # Makes the gradients, which are no activations.
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        step()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak
