"""`tools/test.py --dtype bfloat16`, in a config that also averages weights (EMAHook)."""

import pickle

import pytest
import torch

from mmcloformer.apis.config import build_model, read_config
from mmcloformer.models.deploy import HalfPrecision, cpu_has_bfloat16
from tests.conftest import ROOT

CONFIG = ROOT / 'configs/cloformer_xxs_tiny-imagenet.py'


@pytest.fixture
def scores(shapes, tool_main, tmp_path):
    """Test with random weights; returns a function that gives the scores of four images."""
    cfg = read_config(CONFIG, {'model.head.num_classes': 4})
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'random.pth')
    (tmp_path / 'classes.txt').write_text('ring\nsquare\nstar\ntriangle\n')
    data = 'test_dataloader.dataset'

    def run(*extra):
        tool_main(
            'test.py', CONFIG, tmp_path / 'random.pth', '--work-dir', tmp_path,
            '--out', tmp_path / 'out.pkl', *extra,
            '--cfg-options', f'{data}.data_root={shapes}/imagenet', f'{data}.indices=4',
            f'{data}.classes={tmp_path}/classes.txt', 'test_evaluator.topk=(1,)',
            'val_evaluator.topk=(1,)', 'model.head.num_classes=4',
            'data_preprocessor.num_classes=4', 'test_dataloader.num_workers=0',
        )  # fmt: skip
        predictions = pickle.loads((tmp_path / 'out.pkl').read_bytes())
        return torch.stack([prediction['pred_score'] for prediction in predictions])

    return run


@pytest.mark.skipif(not cpu_has_bfloat16(), reason='the CPU has no units for bfloat16')
def test_the_scores_are_those_of_single_precision_up_to_rounding(scores, monkeypatch):
    built = []
    original = HalfPrecision.__init__
    monkeypatch.setattr(
        HalfPrecision, '__init__', lambda *args: (built.append(1), original(*args))[1]
    )
    exact = scores()
    assert not built
    rounded = scores('--dtype', 'bfloat16')
    assert len(built) == 1
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=5e-3, rtol=5e-2)
