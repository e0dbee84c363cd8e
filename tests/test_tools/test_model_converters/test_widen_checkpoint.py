import torch
from mmengine.runner import CheckpointLoader

from mmcloformer.checkpoint.widen import widen_checkpoint

SHIPPED = 'mmcloformer://cloformer_xxs_tiny-imagenet'


def test_weights_of_the_package_become_wider(tool_main, tmp_path):
    file = tmp_path / 'xs.pth'
    output = tool_main('widen_checkpoint.py', SHIPPED, 'xs', file)
    assert f'wrote {file}: arch xs, 200 classes' in output
    shipped = CheckpointLoader.load_checkpoint(SHIPPED, 'cpu')['state_dict']
    expected = widen_checkpoint(shipped, 'xs')['state_dict']
    written = torch.load(file, weights_only=True)['state_dict']
    assert written.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in written.items())
