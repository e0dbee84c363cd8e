#!/usr/bin/env python
"""Time and memory of a whole process from its start to the predictions for an image: PyTorch
and the host by tools/predict.py, onnxruntime by tools/deployment/predict_onnx.py, in turns."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TOOLS = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('model', help='ONNX file that tools/deployment/export_onnx.py wrote')
    parser.add_argument('image', help='image file')
    parser.add_argument('--rounds', type=int, default=3, help='processes of each')
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error('--rounds must be 1 or more')
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            'PyTorch': ['predict.py', args.config, args.checkpoint, args.image, '--out', folder],
            'onnxruntime': [
                'deployment/predict_onnx.py',
                args.model,
                args.image,
                '--out',
                f'{folder}/r.json',
            ],
        }
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(args.rounds):
            for name, (tool, *rest) in commands.items():
                runs[name].append(run(str(TOOLS / tool), *rest))
    print('| | seconds, median | peak memory, MB |\n|---|---|---|')
    for name, results in runs.items():
        seconds, peaks = zip(*results)
        print(f'| {name} | {median(seconds):.2f} | {median(peaks):.0f} |')


def run(*command: str) -> tuple[float, float]:
    """Seconds and peak resident memory, in MB, of a process.

    This one stays small (it imports no torch): Linux counts what it held when it started the other.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f'error: {" ".join(command)} failed')
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


if __name__ == '__main__':
    main()
