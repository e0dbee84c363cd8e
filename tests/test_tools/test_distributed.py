"""Two real processes on the CPU, joined by gloo: as one node, and as two of one each."""

import json
import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmcloformer.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.test_tools.launching import asked, finish, free_port, launch, recorder, start

DETECTOR = 'retinanet_cloformer_xxs_shapes'
SEGMENTOR = 'semantic-fpn_cloformer_xxs_shapes'
CLASSIFIER = 'cloformer_xxs_shapes'
FOLDERS = {DETECTOR: 'coco', SEGMENTOR: 'ade20k', CLASSIFIER: 'imagenet'}
RENDEZVOUS = ('--nnodes', '--node-rank', '--master-addr', '--master-port')
# Two iterations of four images, and a test of three, which two processes cannot share evenly.
SMALL = """
_base_ = '{root}/configs/demo/{name}.py'
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}', indices=8),
)
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}', indices=3),
)
param_scheduler = None
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""
OWN = {
    DETECTOR: """
test_evaluator = dict(ann_file='{data}annotations/instances_val2017.json')
train_cfg = dict(max_epochs=1)
model = dict(test_cfg=dict(score_thr=0.0))
""",
    SEGMENTOR: """
train_cfg = dict(max_iters=2)
""",
    # Neither batch statistics nor augmentation, so that only the whole batch counts, and steps
    # that are large once scaled by 4 / 2,048.
    CLASSIFIER: """
train_cfg = dict(max_epochs=1)
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackInputs'),
]
model = dict(backbone=dict(norm_eval=True))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=51.2, weight_decay=0.05))
""",
}


@pytest.fixture
def write(shapes, tmp_path):
    def write(name):
        path = tmp_path / f'{name}.py'
        data = f'{shapes}/{FOLDERS[name]}/'
        path.write_text((SMALL + OWN[name]).format(root=ROOT, name=name, data=data))
        return path

    return write


@pytest.mark.parametrize(
    ('tool', 'args'), [('train', ['a b.py']), ('test', ['a b.py', 'epoch_12.pth'])]
)
def test_what_is_asked_of_torchrun(tool, args, tmp_path):
    recorder(tmp_path, 'python')
    options = ['--cfg-options', 'a.b="[1, 2]"']
    where = dict(NNODES=4, NODE_RANK=3, MASTER_ADDR='node0', PORT=12345)
    for env, torchrun in (
        ({}, ['1', '0', '127.0.0.1', '29500']),
        (where, ['4', '3', 'node0', '12345']),
    ):
        argv = asked(tmp_path, 'python', f'dist_{tool}.sh', *args, 8, *options, **env)
        assert argv == [
            '-m', 'torch.distributed.run',
            *map('='.join, zip(RENDEZVOUS, torchrun)),
            '--nproc-per-node=8', str(ROOT / 'tools' / f'{tool}.py'), *args,
            '--launcher', 'pytorch', *options,
        ]  # fmt: skip


def checkpoint(work_dir):
    return read_checkpoint((work_dir / 'last_checkpoint').read_text())


def logged(work_dir):
    scalars = next(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in scalars.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [CLASSIFIER, *(pytest.param(n, marks=pytest.mark.nightly) for n in FOLDERS if n != CLASSIFIER)],
)
def test_two_processes_do_the_work_of_one(name, write, run_tool, tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')  # Another number rounds in another way.
    config = write(name)
    one, two = tmp_path / 'one', tmp_path / 'two'
    batch = ['--auto-scale-lr', '--cfg-options', 'train_dataloader.batch_size=4']
    outputs = [
        run_tool('train.py', config, '--work-dir', one, *batch),
        launch('dist_train.sh', config, 2, '--work-dir', two, '--auto-scale-lr'),
    ]
    cfg = Config.fromfile(config)
    ratio = 4 / cfg.auto_scale_lr.base_batch_size
    for output, work_dir in zip(outputs, (one, two)):
        assert f'Scaling the original LR by {ratio}' in output
        steps = logged(work_dir)
        assert [step['lr'] for step in steps] == [cfg.optim_wrapper.optimizer.lr * ratio] * 2
        assert checkpoint(work_dir)['meta']['iter'] == 2
    if name == CLASSIFIER:
        check_same_weights(*(checkpoint(work_dir)['state_dict'] for work_dir in (one, two)))
    check_same_evaluation(cfg, config, one, two, run_tool)


def check_same_weights(one, two):
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, rtol=0, atol=1e-5 * weight.abs().max())


def check_same_evaluation(cfg, config, one, two, run_tool):
    """To the last bit: same metric, and the same predictions in the order of the data set."""
    trained = (two / 'last_checkpoint').read_text()
    metrics, predictions = [], []
    for run, tool, processes in ((run_tool, 'test.py', []), (launch, 'dist_test.sh', [2])):
        work_dir = one.parent / tool
        pickled = work_dir / 'out.pkl'
        run(tool, config, trained, *processes, '--work-dir', work_dir, '--out', pickled)
        metrics.append(json.loads(next(work_dir.glob('*/*.json')).read_text()))
        del metrics[-1]['time'], metrics[-1]['data_time']
        predictions.append(pickle.loads(pickled.read_bytes()))
    assert metrics[0] == metrics[1]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(3)]
    for prediction in predictions:
        assert [sample['img_path'] for sample in prediction] == paths
    for one, two in zip(*predictions):
        assert len(tensors(one)) > 0
        assert all(map(torch.equal, tensors(one), tensors(two)))


def tensors(node):
    """All tensors of nested dicts, by the names that lead to them."""
    if isinstance(node, torch.Tensor):
        return [node]
    children = sorted(node.items()) if isinstance(node, dict) else []
    return [tensor for _, child in children for tensor in tensors(child)]


@pytest.mark.slow
def test_two_nodes_train(write, tmp_path):
    env = dict(NNODES=2, MASTER_ADDR='127.0.0.1', PORT=free_port())
    nodes = [
        start('dist_train.sh', write(DETECTOR), 1, '--work-dir', tmp_path, NODE_RANK=rank, **env)
        for rank in range(2)
    ]
    for node in nodes:
        finish(node)
    # 8 images in batches of 2 by 2 processes.
    assert [step['step'] for step in logged(tmp_path)] == [1, 2]
    assert checkpoint(tmp_path)['meta']['iter'] == 2
