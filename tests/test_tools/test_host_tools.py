"""The hosts' analysis tools with our configs, started by `python -m mmcloformer`.

One tool of each host is a fast test.
"""

import contextlib
import functools
import io
import json
import re
import sys
from unittest import mock

import cv2
import mmseg
import pytest
import torch

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
FORK_ONLY = pytest.mark.skipif(
    mmseg.__version__.startswith('1.2.'), reason='fails in upstream mmseg'
)
SLOW = pytest.mark.slow


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


@pytest.mark.parametrize(
    ('name', 'tool', 'args', 'pictures'),
    [
        (RETINANET, 'mmdet::confusion_matrix', '{config} {out} {tmp} --score-thr 0', 1),
        pytest.param(
            RETINANET, 'mmdet::analyze_results', '{config} {out} {tmp} --topk 1', 2, marks=SLOW
        ),
        *(
            pytest.param(
                name, 'mmdet::browse_dataset', '{config} --not-show --output-dir {tmp}', 8,
                marks=SLOW,
            )
            for name in (RETINANET, MASK_RCNN)
        ),
        pytest.param(  # It starts 48 processes.
            RETINANET, 'mmdet::coco_error_analysis',
            '{folder}/results.bbox.json {tmp} --ann {data}/annotations/instances_val2017.json', 20,
            marks=SLOW,
        ),
        pytest.param(  # Upstream: the picture has an order of axes that OpenCV does not take.
            SEGMENTOR, 'mmseg::browse_dataset', '{config} --not-show --output-dir {tmp}', 8,
            marks=[SLOW, FORK_ONLY],
        ),
        *(
            pytest.param(
                CLASSIFIER, 'mmpretrain::confusion_matrix',
                '{config} {folder}/' + source + ' --show-path {tmp}/matrix.png', 1, marks=SLOW,
            )
            for source in ('out.pkl', 'weights.pth')
        ),
        (
            CLASSIFIER, 'mmpretrain::analyze_results',
            '{config} {out} --out-dir {tmp} --topk 99', 8,
        ),
    ],
)  # fmt: skip
def test_a_tool_draws(name, tool, args, pictures, tested, shapes, tmp_path):
    folder, _ = tested(name)
    paths = dict(
        config=folder / 'config.py', out=folder / 'out.pkl', folder=folder, tmp=tmp_path,
        data=shapes / 'coco',
    )  # fmt: skip
    host_tool(tool, *args.format(**paths).split())
    found = [path for path in tmp_path.rglob('*.*g') if cv2.imread(str(path)) is not None]
    assert len(found) == pictures


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'tool', 'args'),
    [
        (RETINANET, 'mmdet::eval_metric', '{config} {out}'),
        (MASK_RCNN, 'mmdet::eval_metric', '{config} {out}'),
        (CLASSIFIER, 'mmpretrain::eval_metric', '{out} --metric type=Accuracy topk=1'),
    ],
)
def test_a_tool_finds_the_metrics_of_test_py(name, tool, args, tested):
    folder, metrics = tested(name)
    output = host_tool(
        tool, *args.format(config=folder / 'config.py', out=folder / 'out.pkl').split()
    )
    found = re.findall(r"'(\w+/\w+)': (?:np.float64\()?([-\d.]+)", output)
    assert found
    for metric, value in found:
        assert float(value) == pytest.approx(metrics[metric])


def printed(output, name):
    """Return a figure that a tool prints as `Params: 1.23M`."""
    value, unit = re.search(rf'^{name}: ([\d.]+)([KMG]?)', output, re.M).groups()
    return float(value) * {'': 1, 'K': 1e3, 'M': 1e6, 'G': 1e9}[unit]


@pytest.mark.parametrize(
    ('name', 'tool', 'args', 'size'),
    [
        pytest.param(RETINANET, 'mmdet::get_flops', ['--num-images', 1], 128, marks=SLOW),
        pytest.param(MASK_RCNN, 'mmdet::get_flops', ['--num-images', 1], 128, marks=SLOW),
        # Upstream: `ValueError: "input_shape" and "inputs" cannot be both set`.
        pytest.param(SEGMENTOR, 'mmseg::get_flops', ['--shape', 128], 128, marks=FORK_ONLY),
        pytest.param(CLASSIFIER, 'mmpretrain::get_flops', ['--shape', 64], 64, marks=SLOW),
    ],
)
def test_a_tool_counts_operations(name, tool, args, size, prepared):
    """The hosts' counter does not know the attention kernel, and counts norms and resizing."""
    config = prepared(name) / 'config.py'
    output = host_tool(tool, config, *args)
    expected = measure(read_config(config), (size, size))
    part = 'backbone' if name == CLASSIFIER else 'whole'
    assert printed(output, 'Params') == pytest.approx(expected.parts['whole'].params, rel=1e-3)
    without = expected.parts[part].macs - expected.operators['attention']
    assert without < printed(output, 'Flops') < 1.05 * without


@pytest.mark.slow
def test_mmsegs_confusion_matrix(tested, tmp_path):
    folder, _ = tested(SEGMENTOR)
    args = ['mmseg::confusion_matrix', folder / 'config.py', folder / 'maps', tmp_path]
    with pytest.raises(KeyError, match='classes'):  # It asks the class, not the config.
        host_tool(*args)
    dataset = 'test_dataloader.dataset'
    host_tool(
        *args, '--cfg-options', f'{dataset}.type=PotsdamDataset', f'{dataset}.metainfo=None',
        f'{dataset}.img_suffix=.jpg',
    )  # fmt: skip
    assert [*tmp_path.glob('*.png')]
