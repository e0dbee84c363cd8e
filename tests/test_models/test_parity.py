"""Our numbers against the released code's, through our converter and mmpretrain's classifier."""

import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from mmcloformer.checkpoint.convert import convert_checkpoint, rename_key
from tests import released

TOLERANCE = 2e-5


def relative_error(ours, theirs):
    theirs = torch.as_tensor(theirs)
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def classifier(reference):
    init_default_scope('mmpretrain')
    dims = {'xs': 352, 's': 448}.get(reference, 256)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='CloFormer',
                arch=released.ARCHS[reference],
                out_indices=(0, 1, 2, 3),
                drop_path_rate=0.0,
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=dims),
        )
    )
    checkpoint = convert_checkpoint(released.state_dict(reference))
    assert checkpoint['meta'] == dict(arch=released.ARCHS[reference], num_classes=1000)
    result = model.load_state_dict(checkpoint['state_dict'], strict=False)
    assert not result.unexpected_keys
    new_norms = {f'backbone.norm{i}.{kind}' for i in range(3) for kind in ('weight', 'bias')}
    assert set(result.missing_keys) == new_norms
    return model.eval()


@pytest.mark.parametrize('reference', released.ARCHS)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_outputs(reference, memory_format):
    model = classifier(reference).to(memory_format=memory_format)
    expected = released.outputs(reference)
    sizes = {key.split('/')[0] for key in expected if key[0].isdigit()}
    assert sizes
    for size in sizes:
        height, width = map(int, size.split('x'))
        batch = len(expected[f'{size}/logits'])
        image = released.normal(0, batch, 3, height, width).to(memory_format=memory_format)
        with torch.no_grad():
            maps = model.backbone(image)
            logits = model.head(model.neck(maps))
        for stage, ours in enumerate(maps):
            norm = model.backbone.get_submodule(f'norm{stage}')
            before_norm = torch.from_numpy(expected[f'{size}/stage{stage}'])
            theirs = F.group_norm(before_norm, 1, norm.weight.detach(), norm.bias.detach())
            assert relative_error(ours, theirs) < TOLERANCE
        assert relative_error(logits, expected[f'{size}/logits']) < TOLERANCE


@pytest.mark.parametrize('with_cp', [False, True])
def test_training_gradients(with_cp):
    model = classifier('xxs').train()
    for module in model.backbone.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = with_cp
    expected = released.outputs('xxs')
    image, target = released.normal(1, 2, 3, 64, 64), released.normal(2, 2, 1000)
    logits = model.head(model.neck(model.backbone(image)))
    loss = (logits * target).sum() / 1000
    loss.backward()

    assert relative_error(loss, expected['train64x64/loss']) < TOLERANCE
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norms = {key.removeprefix('grad_norm/'): v for key, v in expected.items() if 'grad' in key}
    norms = {key.removeprefix('train64x64/'): v for key, v in norms.items()}
    assert {rename_key(key) for key in norms} == set(gradients)
    largest = max(norms.values())
    for key, norm in norms.items():
        ours = gradients[rename_key(key)].norm().item()
        if re.fullmatch(r'patch_embed\.conv[1-4]\.conv\.0\.bias|.*\.downsample\.0\.bias', key):
            # A bias before a BatchNorm on batch statistics has no gradient but rounding.
            assert max(ours, norm) < 1e-5 * largest, key
        else:
            assert abs(ours - norm) < TOLERANCE * norm, key
