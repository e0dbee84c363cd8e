"""The host's Runner around a model of one layer, for tests of hooks and checkpoints."""

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner

import mmcloformer  # noqa: F401  (registers the hooks)


class Toy(BaseModel):
    """A regression that starts at zero, with a ballast of some bytes in its checkpoints."""

    def __init__(self, ballast=0):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)
        self.register_buffer('ballast', torch.zeros(ballast, dtype=torch.uint8))

    def forward(self, inputs, target, mode='tensor'):
        error = self.layer(inputs) - target
        return dict(loss_fit=error.square().mean(), bias_norm=self.layer.bias.norm())


class Scores(BaseMetric):
    """Metrics that are given for every validation."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = list(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return self.scores.pop(0)


class Validated(Toy):
    """Takes part in a validation."""

    def forward(self, inputs, target, mode='tensor'):
        return [dict()] if mode == 'predict' else super().forward(inputs, target, mode)


def toy_runner(
    work_dir,
    *,
    model=None,
    lr=0.1,
    epochs=1,
    checkpoint=None,
    batch_size=2,
    sampler='DefaultSampler',
    **settings,
):
    """Four samples, by default two iterations an epoch."""
    data = [dict(inputs=torch.ones(4) * (i + 1), target=torch.ones(4)) for i in range(4)]
    settings = {
        'train_cfg': dict(by_epoch=True, max_epochs=epochs),
        'optim_wrapper': dict(optimizer=dict(type='SGD', lr=lr)),
        **settings,
    }
    return Runner(
        model=model or Toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=data,
            batch_size=batch_size,
            sampler=dict(type=sampler, shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        default_hooks=dict(
            checkpoint={'type': 'CheckpointHook', 'interval': 1, **(checkpoint or {})}
        ),
        randomness=dict(seed=0),
        # Runs of one name that start in one second share their loggers, and so a folder.
        experiment_name=f'{work_dir}_{epochs}',
        **settings,
    )


def train(work_dir, *hooks, **settings):
    """Run it with hooks of these types; returns the Runner."""
    runner = toy_runner(work_dir, custom_hooks=[dict(type=hook) for hook in hooks], **settings)
    runner.train()
    return runner


def validated_runner(work_dir, scores, **settings):
    """Build a Runner that finds these metrics, one per validation."""
    return toy_runner(
        work_dir,
        model=Validated(),
        val_dataloader=dict(
            dataset=[dict(inputs=torch.ones(4), target=torch.ones(4))],
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        val_cfg=dict(),
        val_evaluator=Evaluator([Scores(*scores)]),
        **settings,
    )
