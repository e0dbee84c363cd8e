import pickle

import pytest
import torch
from mmengine.hooks import LoggerHook

from mmcloformer.engine.testing import OneWriterLoggerHook, build_dump_metric


@pytest.mark.parametrize('rank', [0, 1])
def test_only_the_main_process_writes_the_metrics_of_a_test(monkeypatch, rank):
    written = []
    monkeypatch.setattr('mmcloformer.engine.testing.is_main_process', lambda: rank == 0)
    monkeypatch.setattr(LoggerHook, 'after_test_epoch', lambda *args: written.append(args[1:]))
    OneWriterLoggerHook().after_test_epoch('runner', dict(mAP=0.5))
    assert written == [('runner', dict(mAP=0.5))] * (rank == 0)


@pytest.mark.parametrize(('scope', 'keeps_logits'), [('mmseg', False), ('mmpretrain', True)])
def test_logits_of_segmentors_are_not_dumped(tmp_path, scope, keeps_logits):
    metric = build_dump_metric(scope, str(tmp_path / 'out.pkl'))
    metric.process({}, [dict(seg_logits=torch.zeros(2), label=1)])
    metric.evaluate(1)
    (sample,) = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert ('seg_logits' in sample) == keeps_logits
    assert sample['label'] == 1
