"""The same seed on the same machine gives the same weights."""

from mmcloformer.checkpoint import read_checkpoint
from tests.tiny import write_detector


def test_two_runs_of_twenty_iterations_agree_to_the_bit(run_tool, shapes, tmp_path):
    """With shuffled images, flips drawn in a worker, drop path and a scheduled rate."""
    config = write_detector(tmp_path / 'tiny.py', shapes, epochs=5)
    for name in ('one', 'two'):
        run_tool('train.py', config, '--work-dir', tmp_path / name)
    one, two = (read_checkpoint(tmp_path / name / 'epoch_5.pth') for name in ('one', 'two'))
    assert one['meta']['iter'] == 20
    assert one['state_dict'].keys() == two['state_dict'].keys()
    assert all(value.equal(two['state_dict'][key]) for key, value in one['state_dict'].items())
