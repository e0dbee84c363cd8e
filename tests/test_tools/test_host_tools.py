"""The hosts' analysis tools with our configs, started by `python -m mmcloformer`.

One tool of each host is a fast test.
"""

import contextlib
import functools
import io
import json
import pickle
import re
import sys
from unittest import mock

import cv2
import mmseg
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from pycocotools.coco import COCO

from mmcloformer.__main__ import main
from mmcloformer.analysis.complexity import measure
from mmcloformer.apis.config import build_model, read_config
from tests.conftest import ROOT
from tests.hosts import end_workers, forget_instances

MASK_RCNN, RETINANET, SEGMENTOR, CLASSIFIER = (
    'mask-rcnn_cloformer_xxs_shapes',
    'retinanet_cloformer_xxs_shapes',
    'semantic-fpn_cloformer_xxs_shapes',
    'cloformer_xxs_shapes',
)
CONFIG = """
_base_ = '{root}/configs/demo/{name}.py'
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}/'))
train_dataloader = val_dataloader = test_dataloader = loader
"""
DETECTOR = """
val_evaluator = dict(ann_file='{data}/annotations/instances_val2017.json')
test_evaluator = dict(**val_evaluator, outfile_prefix='{folder}/results')
"""
# Untrained scores are all below the usual thresholds.
MORE = {
    RETINANET: DETECTOR + 'model = dict(test_cfg=dict(score_thr=0.0, nms_pre=50))\n',
    MASK_RCNN: DETECTOR + 'model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0)))\n',
    SEGMENTOR: "test_evaluator = dict(output_dir='{folder}/maps')\n",
}
LAYOUTS = {SEGMENTOR: 'ade20k', CLASSIFIER: 'imagenet'}
UPSTREAM = mmseg.__version__.startswith('1.2.')
FORK_ONLY = pytest.mark.skipif(UPSTREAM, reason='fails in upstream mmseg')


def host_tool(name, *args):
    """Run a tool of a host in this process and return what it prints."""
    package, tool = name.split('::')
    forget_instances()
    stdout = io.StringIO()
    argv = ['mmcloformer', f'{package}::analysis_tools/{tool}.py', *map(str, args)]
    patches = mock.patch.multiple(sys, argv=argv, path=[*sys.path])
    try:
        with patches, contextlib.redirect_stdout(stdout):
            main()
    finally:
        end_workers()
        print(stdout.getvalue())
    return stdout.getvalue()


@pytest.fixture(scope='module')
def prepared(shapes, tmp_path_factory):
    """Return a function that writes a demo's config and random weights into a folder."""

    @functools.cache
    def prepare(name):
        folder, data = tmp_path_factory.mktemp(name), shapes / LAYOUTS.get(name, 'coco')
        text = (CONFIG + MORE.get(name, '')).format(root=ROOT, name=name, data=data, folder=folder)
        (folder / 'config.py').write_text(text)
        torch.manual_seed(0)
        model = build_model(read_config(folder / 'config.py'))
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'weights.pth')
        return folder

    return prepare


@pytest.fixture(scope='module')
def tested(prepared, tool_main):
    """Return a function that also tests the demo; it returns the folder and the metrics."""

    @functools.cache
    def test(name):
        folder = prepared(name)
        tool_main(
            'test.py', folder / 'config.py', folder / 'weights.pth', '--work-dir', folder / 'test',
            '--out', folder / 'out.pkl',
        )  # fmt: skip
        (metrics,) = folder.glob('test/2*/*.json')
        return folder, json.loads(metrics.read_text())

    return test


def printed(output, name):
    """Return a figure that a tool prints as `Params: 1.23M`."""
    value, unit = re.search(rf'^{name}: ([\d.]+)([KMG]?)', output, re.M).groups()
    return float(value) * {'': 1, 'K': 1e3, 'M': 1e6, 'G': 1e9}[unit]


@contextlib.contextmanager
def drawn_matrices():
    """Collect the matrices that are drawn with matplotlib."""
    found = []
    imshow = Axes.imshow

    def collect(axes, matrix, *args, **kwargs):
        found.append(matrix)
        return imshow(axes, matrix, *args, **kwargs)

    with mock.patch.object(Axes, 'imshow', collect):
        yield found


def sizes(folder):
    """Return the sizes of all pictures in a folder."""
    return [cv2.imread(str(path)).shape[:2] for path in sorted(folder.rglob('*.*g'))]


def predictions(folder):
    """Read what `tools/test.py --out` wrote."""
    return pickle.loads((folder / 'out.pkl').read_bytes())


def check_flops(output, expected, part):
    """Compare what a tool prints with our counter.

    The hosts' counter does not know the attention kernel, and counts norms and resizing.
    """
    parts = expected.parts
    assert printed(output, 'Params') == pytest.approx(parts['whole'].params, rel=1e-3)
    without = parts[part].macs - expected.operators['attention']
    assert without < printed(output, 'Flops') < 1.05 * without


@pytest.fixture
def perfect(shapes, tested, tmp_path):
    """Write the predictions of a detector that finds every object."""
    annotations = COCO(shapes / 'coco/annotations/instances_val2017.json')
    classes, perfect = annotations.getCatIds(), []
    for each in predictions(tested(RETINANET)[0]):
        objects = annotations.imgToAnns[each['img_id']]
        boxes = torch.tensor([one['bbox'] for one in objects])
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([classes.index(one['category_id']) for one in objects])
        found = dict(bboxes=boxes, labels=labels, scores=torch.ones(len(boxes)))
        perfect.append(dict(each, pred_instances=found))
    file = tmp_path / 'perfect.pkl'
    file.write_bytes(pickle.dumps(perfect))
    return file


def test_mmdets_confusion_matrix(perfect, tested, tmp_path):
    folder, _ = tested(RETINANET)
    host_tool(
        'mmdet::confusion_matrix', folder / 'config.py', folder / 'out.pkl', tmp_path / 'ours',
        '--score-thr', 0, '--nms-iou-thr', 0.5,
    )  # fmt: skip
    assert sizes(tmp_path / 'ours')
    with drawn_matrices() as matrices:
        host_tool('mmdet::confusion_matrix', folder / 'config.py', perfect, tmp_path)
    assert np.array_equal(matrices[0][:-1], 100 * np.eye(5)[:-1])


@pytest.mark.slow
def test_mmdets_analyze_results(tested, tmp_path):
    folder, _ = tested(RETINANET)
    host_tool(
        'mmdet::analyze_results', folder / 'config.py', folder / 'out.pkl', tmp_path, '--topk', 1
    )
    assert sizes(tmp_path / 'good') == sizes(tmp_path / 'bad') == [(128, 128)]


@pytest.mark.slow  # It starts 48 processes.
def test_mmdets_coco_error_analysis(shapes, tested, tmp_path):
    folder, _ = tested(RETINANET)
    annotations = shapes / 'coco/annotations/instances_val2017.json'
    output = host_tool(
        'mmdet::coco_error_analysis', folder / 'results.bbox.json', tmp_path, '--ann', annotations,
        '--extraplots',
    )  # fmt: skip
    assert (tmp_path / 'bbox/bbox-allclass-allarea.png').stat().st_size > 1000
    assert len([*tmp_path.glob('bbox/*-allarea.png')]) == 4 + 1
    number = len(json.loads(annotations.read_text())['annotations'])
    assert f"'all': {number}," in output


def mmdets_metrics(*args):
    output = host_tool('mmdet::eval_metric', *args)
    found = re.findall(r"'(coco/\w+)': (?:np.float64\()?([-\d.]+)", output)
    return {name: float(value) for name, value in found}


@pytest.mark.slow
@pytest.mark.parametrize('name', [RETINANET, MASK_RCNN])
def test_mmdets_eval_metric(name, tested):
    folder, metrics = tested(name)
    ours = {name: value for name, value in metrics.items() if name.startswith('coco/')}
    assert mmdets_metrics(folder / 'config.py', folder / 'out.pkl') == pytest.approx(ours)


@pytest.mark.slow
def test_mmdets_eval_metric_of_a_perfect_detector(perfect, prepared):
    found = mmdets_metrics(prepared(RETINANET) / 'config.py', perfect)
    assert found['coco/bbox_mAP'] == found['coco/bbox_mAP_50'] == 1


@pytest.mark.slow
@pytest.mark.parametrize('name', [RETINANET, MASK_RCNN])
def test_mmdets_browse_dataset(name, prepared, tmp_path):
    config = prepared(name) / 'config.py'
    host_tool('mmdet::browse_dataset', config, '--not-show', '--output-dir', tmp_path)
    assert sizes(tmp_path) == [(128, 128)] * 8


@pytest.mark.slow
@pytest.mark.parametrize('name', [RETINANET, MASK_RCNN])
def test_mmdets_get_flops(name, prepared):
    config = prepared(name) / 'config.py'
    output = host_tool('mmdet::get_flops', config, '--num-images', 1)
    check_flops(output, measure(read_config(config), (128, 128)), 'whole')


@pytest.mark.slow
def test_mmsegs_confusion_matrix(tested, tmp_path):
    folder, _ = tested(SEGMENTOR)
    args = ['mmseg::confusion_matrix', folder / 'config.py', folder / 'maps', tmp_path]
    with pytest.raises(KeyError, match='classes'):  # It asks the class, not the config.
        host_tool(*args)
    dataset = 'test_dataloader.dataset'
    with drawn_matrices() as matrices:
        host_tool(
            *args, '--cfg-options', f'{dataset}.type=PotsdamDataset', f'{dataset}.metainfo=None',
            f'{dataset}.img_suffix=.jpg',
        )  # fmt: skip
    assert sizes(tmp_path)
    if UPSTREAM:
        return  # It subtracts 1 from the labels twice.
    expected = np.zeros((6, 6))
    for each in predictions(folder):
        labels = cv2.imread(each['seg_map_path'], cv2.IMREAD_UNCHANGED).astype(int) - 1
        for found in range(5):
            at = labels[(each['pred_sem_seg']['data'][0].numpy() == found) & (labels >= 0)]
            expected[:5, found] += np.bincount(at, minlength=5)
    sums = expected[:5].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(matrices[0][:5], 100 * expected[:5] / sums, rtol=1e-5)


@pytest.mark.slow
@FORK_ONLY  # Upstream: the picture has an order of axes that OpenCV does not take.
def test_mmsegs_browse_dataset(prepared, tmp_path):
    config = prepared(SEGMENTOR) / 'config.py'
    host_tool('mmseg::browse_dataset', config, '--not-show', '--output-dir', tmp_path)
    assert sizes(tmp_path) == [(128, 128)] * 8


@FORK_ONLY  # Upstream: `ValueError: "input_shape" and "inputs" cannot be both set`.
def test_mmsegs_get_flops(prepared):
    config = prepared(SEGMENTOR) / 'config.py'
    output = host_tool('mmseg::get_flops', config, '--shape', 128)
    check_flops(output, measure(read_config(config), (128, 128)), 'whole')


@pytest.mark.slow
@pytest.mark.parametrize('source', ['out.pkl', 'weights.pth'])
def test_mmpretrains_confusion_matrix(source, tested, tmp_path):
    folder, _ = tested(CLASSIFIER)
    host_tool(
        'mmpretrain::confusion_matrix', folder / 'config.py', folder / source, '--out',
        tmp_path / 'matrix.pkl', '--show-path', tmp_path / 'matrix.png', '--include-values',
    )  # fmt: skip
    expected = np.zeros((4, 4), int)
    for each in predictions(folder):
        expected[int(each['gt_label']), int(each['pred_label'])] += 1
    assert np.array_equal(pickle.loads((tmp_path / 'matrix.pkl').read_bytes()), expected)
    assert sizes(tmp_path)


def test_mmpretrains_analyze_results(tested, tmp_path):
    folder, _ = tested(CLASSIFIER)
    files = folder / 'config.py', folder / 'out.pkl'
    host_tool('mmpretrain::analyze_results', *files, '--out-dir', tmp_path, '--topk', 99)
    right = [bool(each['pred_label'] == each['gt_label']) for each in predictions(folder)]
    assert len(sizes(tmp_path / 'success')) == right.count(True)
    assert len(sizes(tmp_path / 'fail')) == right.count(False)


@pytest.mark.slow
def test_mmpretrains_eval_metric(tested):
    folder, metrics = tested(CLASSIFIER)
    output = host_tool(
        'mmpretrain::eval_metric', folder / 'out.pkl', '--metric', 'type=Accuracy', 'topk=1'
    )
    found = re.search(r"'accuracy/top1': ([\d.]+)", output)[1]
    assert float(found) == pytest.approx(metrics['accuracy/top1'])


@pytest.mark.slow
def test_mmpretrains_get_flops(prepared):
    config = prepared(CLASSIFIER) / 'config.py'
    output = host_tool('mmpretrain::get_flops', config, '--shape', 64)
    check_flops(output, measure(read_config(config), (64, 64)), 'backbone')
