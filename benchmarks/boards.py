"""Measures the snippets of docs/deploy.md for phones and boards beside onnxruntime, on one thread.

Run `python -m benchmarks.boards classifier` and `python -m benchmarks.boards detector` with the
packages of requirements/boards.txt and nncf; runtimes that are not installed are left out.
"""

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from torch import Tensor

from mmcloformer.analysis.environment import environment
from mmcloformer.apis.config import build_model, read_config
from mmcloformer.export.onnx_file import TRANSLATIONS

from .measure import time_interleaved

ROOT = Path(__file__).parent.parent
FILES = {
    'OpenVINO': ('cloformer.xml', 'cloformer.bin'),
    'ncnn': ('cloformer.ncnn.param', 'cloformer.ncnn.bin'),
    'ExecuTorch': ('cloformer.pte',),
    'Core ML': ('cloformer.mlpackage',),
    'LiteRT': ('cloformer.tflite',),
}
PACKAGES = (
    'openvino', 'nncf', 'ncnn', 'pnnx', 'executorch', 'coremltools', 'litert-torch',
    'ai-edge-litert', 'ai-edge-quantizer',
)  # fmt: skip
Names = dict[str, Any]
Run = Callable[[Tensor], Sequence[Any]]


def snippets(heading: str) -> list[str]:
    """Return the Python blocks of docs/deploy.md between a heading and the next one."""
    text = (ROOT / 'docs/deploy.md').read_text()
    (section,) = re.findall(rf'^#+ {heading}\n(.*?)(?=^#+ )', text, re.DOTALL | re.MULTILINE)
    return re.findall(r'^```python\n(.*?)^```', section, re.DOTALL | re.MULTILINE)


def prepare(kind: str) -> Names:
    """Return the variables that a snippet for a runtime continues.

    Args:
        kind: `'classifier'`, that of the package, or `'detector'`, the backbone and the neck of
            RetinaNet-XXS with random weights.
    """
    names: Names = dict(torch=torch)
    classifier, detector = snippets('Phones and boards')
    if kind == 'classifier':
        exec(classifier.replace("'configs/", f"'{ROOT}/configs/"), names)
    else:
        config = read_config(str(ROOT / 'configs/retinanet_cloformer_xxs_coco.py'))
        names['trained'] = build_model(config).eval()
        exec('from mmcloformer.export import make_graph\n' + detector, names)
    return names


def onnxruntime_run(path: str) -> Run:
    """Load an ONNX file for one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, ['CPUExecutionProvider'])
    return lambda images: session.run(None, {session.get_inputs()[0].name: images.numpy()})


def convert(names: Names) -> Iterator[tuple[str, Run | None, tuple[str, ...]]]:
    """Convert the model in the current folder.

    Yields:
        The name of each runtime, how to run the model (None: not on this system) and its files.
    """
    model, images = names['model'], names['images']
    torch.onnx.export(
        model,
        (images,),
        'cloformer.onnx',
        dynamo=True,
        opset_version=20,
        input_names=['images'],
        external_data=False,
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    yield 'onnxruntime', onnxruntime_run('cloformer.onnx'), ('cloformer.onnx',)
    for runtime, files in FILES.items():
        scope = dict(names)
        try:
            exec(snippets(runtime)[0], scope)
        except ImportError as error:
            print(f'{runtime}: {error}')
            continue
        yield runtime, scope.get('run'), files


def quantize(names: Names, batches: list[Tensor]) -> Iterator[tuple[str, Run, tuple[str, ...]]]:
    """Quantise the models that `convert` wrote to int8, each by the quantiser of its runtime."""
    arrays = [batch.numpy() for batch in batches]
    yield 'onnxruntime, int8', _quantize_onnx(arrays), ('int8.onnx',)
    others: dict[str, tuple[Callable[[], Run], tuple[str, ...]]] = {
        'OpenVINO, int8': (lambda: _quantize_openvino(arrays), ('int8.xml', 'int8.bin')),
        'ExecuTorch, int8': (lambda: _quantize_executorch(names, batches), ('int8.pte',)),
        'LiteRT, int8 weights': (_quantize_litert, ('int8.tflite',)),
    }
    for name, (quantize_model, files) in others.items():
        try:
            yield name, quantize_model(), files
        except ImportError as error:
            print(f'{name}: {error}')


def _quantize_onnx(arrays: list[Any]) -> Run:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        rest = iter([dict(images=array) for array in arrays])

        def get_next(self) -> Any:
            return next(self.rest, None)

    quantize_static(
        'cloformer.onnx', 'int8.onnx', Reader(), per_channel=True, op_types_to_quantize=['Conv']
    )
    return onnxruntime_run('int8.onnx')


def _quantize_openvino(arrays: list[Any]) -> Run:
    import nncf
    import openvino

    model = openvino.Core().read_model('cloformer.xml')
    openvino.save_model(nncf.quantize(model, nncf.Dataset(arrays)), 'int8.xml')
    settings = dict(INFERENCE_NUM_THREADS=1, INFERENCE_PRECISION_HINT='f32')
    compiled = openvino.compile_model('int8.xml', 'CPU', settings)
    return lambda images: list(compiled(images.numpy()).values())


def _quantize_executorch(names: Names, batches: list[Tensor]) -> Run:
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    program = torch.export.export(names['model'], (names['images'],)).module()
    observed = prepare_pt2e(program, xnnpack.XNNPACKQuantizer().set_global(config))
    for batch in batches:
        observed(batch)
    scope = dict(names, model=convert_pt2e(observed))
    exec(snippets('ExecuTorch')[0].replace('cloformer.pte', 'int8.pte'), scope)
    return scope['run']


def _quantize_litert() -> Run:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    quantized = quantizer.Quantizer('cloformer.tflite', recipe.dynamic_wi8_afp32()).quantize()
    quantized.export_model('int8.tflite', overwrite=True)
    runner = Interpreter('int8.tflite', num_threads=1).get_signature_runner()
    return lambda images: list(runner(args_0=images.numpy()).values())


def load_images(data: Path, names: Names) -> Callable[[range], Iterator[tuple[Tensor, int]]]:
    """Return a function that reads validation images of Tiny ImageNet by their indices."""
    settings = names['config'].val_dataloader.dataset
    settings.update(data_root=str(data), classes=str(data / 'classes.txt'))
    dataset = DATASETS.build(settings)

    def read(indices: range) -> Iterator[tuple[Tensor, int]]:
        for index in indices:
            sample = dataset[index]
            batch = dict(inputs=sample['inputs'][None], data_samples=[sample['data_samples']])
            inputs = names['trained'].data_preprocessor(batch)['inputs']
            yield inputs, int(sample['data_samples'].gt_label)

    return read


@torch.no_grad()
def measure(kind: str, data: Path, rounds: int, num_images: int) -> list[Names]:
    """Convert a model for all runtimes, and compare and time them in turns."""
    use_one_thread()
    names = prepare(kind)
    images = names['images']
    expected = names['model'](images)
    expected = [expected] if isinstance(expected, Tensor) else expected
    scale = max(float(value.abs().max()) for value in expected)
    read = load_images(data, names) if kind == 'classifier' else None
    found = list(convert(names))
    samples: list[tuple[Tensor, int]] = []
    if read:
        # Every 10th image is tested; images between them calibrate int8.
        found += quantize(names, [image for image, _ in read(range(5, 10_000, 310))])
        samples = list(read(range(0, 10_000, 10_000 // num_images)))
    runs: dict[str, Run] = {name: run for name, run, _ in found if run}
    steps = {name: lambda run=run: run(images) for name, run in runs.items()}
    seconds, _ = time_interleaved(steps, rounds)
    runs['PyTorch'] = lambda images: [names['model'](images).numpy()]
    top1 = {
        name: 100 * np.mean([run(image)[0].argmax() == label for image, label in samples])
        for name, run in runs.items()
        if samples
    }
    if samples:
        found.append(('PyTorch', None, ()))
    rows: list[Names] = []
    for name, run, files in found:
        row: Names = dict(model=kind, runtime=name)
        if files:
            row['file_mb'] = round(sum(map(_size, files)) / 1e6, 1)
        if run:
            outs = zip(run(images), expected)
            worst = max(float(np.abs(out - value.numpy()).max()) for out, value in outs)
            row['median_ms'] = round(1e3 * median(seconds[name]), 3)
            row['fastest_ms'] = round(1e3 * min(seconds[name]), 3)
            row['difference'] = float(f'{worst / scale:.2g}')
        if name in top1:
            row |= dict(top1=round(float(top1[name]), 2), images=len(samples))
        rows.append(row)
    return rows


def use_one_thread() -> None:
    """Set the threads of PyTorch and ExecuTorch; the snippets set those of the others."""
    torch.set_num_threads(1)
    try:
        from executorch.extension.pybindings import portable_lib
    except ImportError:
        return
    portable_lib._unsafe_reset_threadpool(1)


def table(rows: Sequence[Names]) -> str:
    """Return the table of docs/deploy.md."""
    lines = ['| | ms | MB | difference | top-1 | ms, detector | MB | difference |']
    lines.append('|' + '---|' * 8)
    fields = ('median_ms', 'file_mb', 'difference')
    detector = {row['runtime']: row for row in rows if row['model'] == 'detector'}
    for row in rows:
        if row['model'] == 'classifier':
            other = detector.get(row['runtime'], {})
            cells = [row.get(field, '-') for field in (*fields, 'top1')]
            cells += [other.get(field, '-') for field in fields]
            for i in (0, 4):
                cells[i] = f'{cells[i]:.1f}' if cells[i] != '-' else '-'
            lines.append('| ' + ' | '.join(map(str, (row['runtime'], *cells))) + ' |')
    return '\n'.join(lines)


def _size(name: str) -> int:
    path = Path(name)
    files = path.rglob('*') if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('kind', choices=('classifier', 'detector'))
    parser.add_argument('--data', type=Path, default=ROOT / 'data/tiny-imagenet-200')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--images', type=int, default=1000, help='images that top-1 is measured on')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks/boards.json')
    args = parser.parse_args()
    args.data, args.out = args.data.absolute(), args.out.absolute()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = measure(args.kind, args.data, args.rounds, args.images)
        os.chdir(here)
    known = json.loads(args.out.read_text())['rows'] if args.out.exists() else []
    rows = sorted(
        [row for row in known if row['model'] != args.kind] + rows, key=lambda row: row['model']
    )
    result = environment('cpu')
    for package in PACKAGES:
        try:
            result['versions'][package] = version(package)
        except PackageNotFoundError:
            continue
    args.out.write_text(json.dumps(result | dict(threads=1, rows=rows), indent=1) + '\n')
    print(table(rows))


if __name__ == '__main__':
    main()
