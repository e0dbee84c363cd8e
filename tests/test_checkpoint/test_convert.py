import pytest
import torch

from mmcloformer import CloFormer
from mmcloformer.checkpoint.convert import convert_checkpoint, rename_key
from mmcloformer.errors import CheckpointError
from mmcloformer.models import resolve_arch
from tests import released
from tests.archs import SEVERAL_BRANCHES


@pytest.mark.parametrize('reference', released.ARCHS)
def test_every_released_key_has_one_place(reference):
    state_dict = released.state_dict(reference)
    converted = convert_checkpoint(state_dict)['state_dict']
    assert len(converted) == len(state_dict)
    for key, value in state_dict.items():
        assert converted[rename_key(key)] is value


def test_an_arch_of_ones_own_is_read_off_the_shapes():
    arch = resolve_arch(SEVERAL_BRANCHES)
    backbone = CloFormer(arch=SEVERAL_BRANCHES, out_indices=(3,), in_channels=1)
    ours = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    ours |= {'head.fc.weight': torch.zeros(7, 64), 'head.fc.bias': torch.zeros(7)}
    back = {release(key): value for key, value in ours.items()}
    checkpoint = convert_checkpoint(back)
    assert checkpoint['state_dict'].keys() == ours.keys()
    assert checkpoint['meta']['num_classes'] == 7
    found = resolve_arch(checkpoint['meta']['arch'])
    for field in ('embed_dims', 'depths'):
        assert getattr(found, field) == getattr(arch, field)
    assert found.kernel_sizes[:2] == ((5, 3), (7,))


def test_old_files_lack_the_counters_of_batch_norm():
    weights = {
        key: value
        for key, value in released.state_dict('xxs').items()
        if not key.endswith('num_batches_tracked')
    }
    assert convert_checkpoint(weights)['meta']['arch'] == 'xxs'


def release(key):
    """Return the released name of a key of this package, the inverse of `rename_key`."""
    import re

    rules = [
        (r'^backbone\.stem\.conv(\d)\.', r'patch_embed.conv\1.conv.'),
        (r'^backbone\.stem\.proj\.', 'patch_embed.conv5.'),
        (r'^backbone\.stem\.norm\.', 'patch_embed.layernorm.'),
        (r'^backbone\.stages\.(\d)\.(\d)\.', r'layers.\1.blocks.\2.'),
        (r'attn\.local\.(\d)\.qkv', r'attn.qkvs.\1'),
        (r'attn\.local\.(\d)\.dwconv', r'attn.convs.\1'),
        (r'attn\.local\.(\d)\.gate', r'attn.act_blocks.\1.act_block'),
        (r'attn\.pooled\.(q|kv)', r'attn.global_\1'),
        (r'\.ffn\.', '.mlp.'),
        (r'\.shortcut\.', '.downsample.'),
        (r'^backbone\.norm3\.', 'norm.'),
        (r'^head\.fc\.', 'head.'),
    ]
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def test_unknown_keys_are_named():
    state_dict = released.state_dict('xxs') | {'layers.0.surprise.weight': torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r'layers\.0\.surprise\.weight'):
        convert_checkpoint(state_dict)


@pytest.mark.parametrize(
    'key',
    [
        'norm.weight',
        'head.bias',
        'patch_embed.conv1.conv.1.running_var',
        'layers.1.blocks.1.mlp.dwconv.bias',
        'layers.2.blocks.0.attn.qkvs.0.weight',
        'layers.2.blocks.0.attn.proj.weight',
        'patch_embed.conv1.conv.0.weight',
    ],
)
def test_missing_keys_are_named(key):
    state_dict = released.state_dict('xxs')
    del state_dict[key]
    with pytest.raises(CheckpointError) as error:
        convert_checkpoint(state_dict)
    assert rename_key(key).removeprefix('backbone.') in str(error.value)


def test_a_wrong_shape_is_named():
    state_dict = released.state_dict('xs')
    state_dict['layers.3.blocks.0.mlp.fc1.weight'] = torch.zeros(5, 352, 1, 1)
    with pytest.raises(CheckpointError, match=r'stages\.3\.0\.ffn\.fc1\.weight \(5, 352, 1, 1\)'):
        convert_checkpoint(state_dict)


@pytest.mark.parametrize('shape', [(), (0, 1, 1, 1)])
def test_no_shape_of_any_weight_is_another_error(shape):
    """Of those the arch is inferred from, and one of each other kind."""
    state_dict = released.state_dict('xxs')
    last = 'layers.3.blocks.1.'
    ends = ('proj.weight', 'global_q.weight', 'qkvs.0.weight', 'convs.0.weight', 'convs.0.bias')
    keys = [key for key in state_dict if key.startswith('layers.0.blocks.0.attn.')]
    keys = [key for key in keys if key.endswith(ends)]
    keys += [key for key in state_dict if key.startswith(('head', 'norm', 'patch_embed.conv1'))]
    keys += [key for key in state_dict if key.startswith(last) and key.endswith('norm1.weight')]
    for key in keys:
        if state_dict[key].shape != shape:
            with pytest.raises(CheckpointError):
                convert_checkpoint(state_dict | {key: torch.zeros(shape)})


def test_another_model_is_refused():
    with pytest.raises(CheckpointError, match=r'layer1\.0\.conv1\.weight'):
        convert_checkpoint({'layer1.0.conv1.weight': torch.zeros(64, 64, 3, 3)})
