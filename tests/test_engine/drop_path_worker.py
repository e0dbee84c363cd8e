"""One of two gloo processes that train a toy with drop path, started by test_hooks.py."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmcv.cnn.bricks import DropPath
from mmengine.dist import broadcast, sync_random_seed

from tests.toy import Toy, toy_runner


class Dropping(Toy):
    """Records which samples drop path keeps, and the iteration's seed of all processes."""

    def __init__(self):
        super().__init__()
        self.drop_path = DropPath(0.5)
        self.masks = []

    def forward(self, inputs, target, mode='tensor'):
        mask = self.drop_path(torch.ones(64, 1, 1, 1)).flatten()
        self.masks.append(mask.tolist())
        size = torch.randint(1000, ())
        broadcast(size)  # As mmdet's BatchSyncRandomResize does.
        self.masks[-1] += [float(size), float(sync_random_seed())]
        return super().forward(inputs, target, mode)


def main(rank, store, work_dir, stops):
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    masks = []
    for stop in stops:
        model = Dropping()
        toy_runner(
            work_dir,
            model=model,
            epochs=stop,
            resume=True,
            checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=1),
            custom_hooks=[dict(type='ReseedHook')],
        ).train()
        masks += model.masks
    Path(f'{work_dir}_{rank}.json').write_text(json.dumps(masks))
    dist.barrier()


if __name__ == '__main__':
    rank, store, work_dir, *stops = sys.argv[1:]
    main(int(rank), store, work_dir, [int(stop) for stop in stops])
